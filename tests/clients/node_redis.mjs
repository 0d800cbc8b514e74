// node-redis with its defaults against PROXY_ADDR.
import { createRequire } from "node:module";
import { data, expecter, fail, host, port } from "./check.mjs";

const require = createRequire(process.env.CLIENT_MODULES ?? import.meta.url);
const { createClient } = require("redis");
const { version } = require("redis/package.json");

const { keys, values, missing } = data("node-redis");
const expect = expecter("node-redis");
const client = createClient({ url: `redis://${host}:${port}` });
client.on("error", (error) => fail("node-redis", error.message));
await client.connect();

expect("PING", await client.ping(), "PONG");
expect("SET", await client.set(keys[0], values[0]), "OK");
expect("GET", await client.get(keys[0]), values[0]);
expect("GET of a missing key", await client.get(missing), null);

const pipeline = client.multi();
keys.forEach((key, n) => pipeline.set(key, values[n]));
keys.forEach((key) => pipeline.get(key));
expect("pipeline", await pipeline.execAsPipeline(), [...keys.map(() => "OK"), ...values]);

// Over all shards, with a key asked for twice and one that is not there.
expect("MGET", await client.mGet([...keys, keys[3], missing]), [...values, values[3], null]);
expect("GETs without waiting", await Promise.all(keys.map((key) => client.get(key))), values);
expect("DEL", await client.del(keys), keys.length);
await client.close();
console.log(`node-redis ${version}: ok`);
