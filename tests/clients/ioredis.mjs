// ioredis with its defaults (ready check by INFO) against PROXY_ADDR.
import { createRequire } from "node:module";
import { data, expecter, fail, host, port } from "./check.mjs";

const require = createRequire(process.env.CLIENT_MODULES ?? import.meta.url);
const { Redis } = require("ioredis");
const { version } = require("ioredis/package.json");

const { keys, values, missing } = data("ioredis");
const expect = expecter("ioredis");
const client = new Redis({ host, port });
client.on("error", (error) => fail("ioredis", error.message));

expect("PING", await client.ping(), "PONG");
expect("SET", await client.set(keys[0], values[0]), "OK");
expect("GET", await client.get(keys[0]), values[0]);
expect("GET of a missing key", await client.get(missing), null);

const pipeline = client.pipeline();
keys.forEach((key, n) => pipeline.set(key, values[n]));
keys.forEach((key) => pipeline.get(key));
expect("pipeline", await pipeline.exec(), [...keys.map(() => [null, "OK"]), ...values.map((value) => [null, value])]);

// Over all shards, with a key asked for twice and one that is not there.
expect("MGET", await client.mget(...keys, keys[3], missing), [...values, values[3], null]);
expect("GETs without waiting", await Promise.all(keys.map((key) => client.get(key))), values);
expect("DEL", await client.del(...keys), keys.length);
expect("QUIT", await client.quit(), "OK");
console.log(`ioredis ${version}: ok`);
