// What the JavaScript clients' tests share: the address, the data and a comparison that names what differs.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual, inspect } from "node:util";

const address = process.env.PROXY_ADDR ?? "127.0.0.1:6380";
const colon = address.lastIndexOf(":");
export const host = address.slice(0, colon);
export const port = Number(address.slice(colon + 1));

// Over TLS, and as a user, where these are set.
const { PROXY_CA, PROXY_USER, PROXY_PASSWORD } = process.env;
export const security = PROXY_CA && { ca: readFileSync(PROXY_CA), username: PROXY_USER, password: PROXY_PASSWORD };

// Keys of one run: some over all slots, and any number that share one.
export function data(client) {
  const prefix = `clients:${client}:${process.pid}`;
  const numbers = [...Array(30).keys()];
  return {
    prefix,
    keys: numbers.map((n) => `${prefix}:${n}`),
    values: numbers.map((n) => `value-${n}`),
    missing: `${prefix}:missing`,
    tagged: (name) => `{${prefix}}:${name}`,
  };
}

export function fail(client, text) {
  console.error(`${client}: ${text}`);
  process.exit(1);
}

export function expecter(client) {
  process.on("uncaughtException", (error) => fail(client, error.stack));
  setTimeout(() => fail(client, "no end within 40 s"), 40_000).unref();
  return (what, got, wanted) => {
    if (!isDeepStrictEqual(got, wanted)) {
      const at = new Error().stack.split("\n")[2]?.trim();
      fail(client, `${what}: got ${inspect(got)}, wanted ${inspect(wanted)} (${at})`);
    }
  };
}

// The next event of this name, or of the names; what it carries.
export const next = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
