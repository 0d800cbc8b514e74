// ioredis against PROXY_ADDR: plain (ready check by INFO) and Cluster (CLUSTER SLOTS), in both dialects.
import { createRequire } from "node:module";
import { data, expecter, fail, host, next, port, security } from "./check.mjs";

const require = createRequire(process.env.CLIENT_MODULES ?? import.meta.url);
const { Redis, Cluster } = require("ioredis");
const { version } = require("ioredis/package.json");
const expect = expecter("ioredis");

const watched = (client, name) => client.on("error", (error) => fail(name, error.stack));
const { ca, username, password } = security ?? {};
const secured = security ? { tls: { ca }, username, password } : {};
const plain = (options) => new Redis({ host, port, ...secured, ...options });
const cluster = (options) => new Cluster([{ host, port }], { redisOptions: { ...secured, ...options } });

async function suite(name, make) {
  const { prefix, keys, values, missing, tagged } = data(name);
  const client = watched(make({ connectionName: name }), name);
  expect("PING", await client.ping(), "PONG");

  // Data types.
  expect("SET", await client.set(keys[0], values[0]), "OK");
  expect("GET", await client.get(keys[0]), values[0]);
  expect("GET of a missing key", await client.get(missing), null);
  expect("HSET", await client.hset(tagged("h"), { a: 1, b: "x y" }), 2);
  expect("HGETALL", { ...(await client.hgetall(tagged("h"))) }, { a: "1", b: "x y" });
  expect("RPUSH", await client.rpush(tagged("l"), "a", "b", "c"), 3);
  expect("LRANGE", await client.lrange(tagged("l"), 0, -1), ["a", "b", "c"]);
  expect("SADD", await client.sadd(tagged("s"), 1, 2), 2);
  expect("SMEMBERS", (await client.smembers(tagged("s"))).sort(), ["1", "2"]);
  expect("ZADD", await client.zadd(tagged("z"), 1.5, "a"), 1);
  expect("ZSCORE", String(await client.zscore(tagged("z"), "a")), "1.5");
  const id = await client.xadd(tagged("x"), "*", "field", "1");
  expect("XRANGE", await client.xrange(tagged("x"), "-", "+"), [[id, ["field", "1"]]]);
  const bytes = Buffer.from([...Array(256).keys()]);
  expect("SET of bytes", await client.set(tagged("bin"), bytes), "OK");
  expect("GET of bytes", (await client.getBuffer(tagged("bin"))).equals(bytes), true);

  // Pipelines. Those of a Cluster go to one node, as long as all keys do.
  const pipeline = client.pipeline();
  keys.forEach((key, n) => pipeline.set(key, values[n]));
  keys.forEach((key) => pipeline.get(key));
  expect("pipeline", await pipeline.exec(), [...keys.map(() => [null, "OK"]), ...values.map((value) => [null, value])]);
  const [[wrong], [, right]] = await client.pipeline().incr(tagged("l")).get(keys[1]).exec();
  expect("error in a pipeline", wrong.message.startsWith("WRONGTYPE"), true);
  expect("after an error in a pipeline", right, values[1]);
  expect("GETs without waiting", await Promise.all(keys.map((key) => client.get(key))), values);

  // Transactions.
  const counter = tagged("counter");
  expect("MULTI", await client.multi().set(counter, 1).incr(counter).exec(), [[null, "OK"], [null, 2]]);
  const refused = await client.multi().set(counter, 1).call("nosuch").exec().catch((error) => error);
  expect("EXECABORT", /EXECABORT/.test(refused.message), true);
  if (client instanceof Redis) {
    const other = watched(make({}), name);
    await client.watch(counter);
    await other.set(counter, 10);
    expect("lost WATCH", await client.multi().incr(counter).exec(), null);
    await client.watch(counter);
    expect("WATCH", await client.multi().incr(counter).exec(), [[null, 11]]);
    await other.quit();
  }

  // Pub/sub over a connection of its own; sharded, too.
  const subscriber = watched(make({}), name);
  expect("SUBSCRIBE", await subscriber.subscribe(`${prefix}:c1`, `${prefix}:c2`), 2);
  expect("PSUBSCRIBE", await subscriber.psubscribe(`${prefix}:p*`), 3);
  let message = next(subscriber, "message");
  expect("PUBLISH", await client.publish(`${prefix}:c2`, "hello"), 1);
  expect("message", await message, [`${prefix}:c2`, "hello"]);
  message = next(subscriber, "pmessage");
  expect("PUBLISH to a pattern", await client.publish(`${prefix}:pattern`, "again"), 1);
  expect("pmessage", await message, [`${prefix}:p*`, `${prefix}:pattern`, "again"]);
  expect("UNSUBSCRIBE", await subscriber.unsubscribe(`${prefix}:c1`), 2);
  subscriber.disconnect();

  // Blocking, over a connection of its own as every client must.
  const blocked = watched(make({}), name);
  const popped = blocked.blpop(tagged("q"), 20);
  expect("RPUSH", await client.rpush(tagged("q"), "job"), 1);
  expect("BLPOP", await popped, [tagged("q"), "job"]);
  expect("BLPOP of nothing", await blocked.blpop(tagged("q"), 0.1), null);
  blocked.disconnect();

  // Scripts: EVALSHA, then EVAL on NOSCRIPT.
  client.defineCommand("echoes", { numberOfKeys: 1, lua: `-- ${prefix}\nreturn {KEYS[1], ARGV[1]}` });
  expect("script", await client.echoes(tagged("k"), "v"), [tagged("k"), "v"]);
  expect("script again", await client.echoes(tagged("k"), "w"), [tagged("k"), "w"]);

  // Scan; that of a Cluster is asked of its nodes.
  const found = new Set();
  for (const node of client.nodes ? client.nodes("master") : [client]) {
    for await (const some of node.scanStream({ match: `${prefix}:*`, count: 50 })) some.forEach((key) => found.add(key));
  }
  expect("SCAN", keys.filter((key) => !found.has(key)), []);

  // A connection that is cut is made again, and its handshake with it.
  const lines = (await client.client("LIST")).split("\n").filter((line) => line.includes(` name=${name} `));
  const ids = lines.map((line) => line.match(/^id=(\d+)/)[1]);
  expect("CLIENT SETNAME of the handshake", ids.length > 0, true);
  const killer = plain({});
  for (const killed of ids) await killer.client("KILL", "ID", killed);
  await killer.quit();
  expect("after CLIENT KILL", await client.get(keys[3]), values[3]);

  if (client instanceof Redis) {
    // Over all shards, with a key asked for twice and one that is not there.
    expect("MGET", await client.mget(...keys, keys[3], missing), [...values, values[3], null]);
    expect("DEL", await client.del(...keys), keys.length);
  }
  expect("QUIT", await client.quit(), "OK");
}

for (const protocol of [2, 3]) {
  await suite(`ioredis-resp${protocol}`, (options) => plain({ protocol, ...options }));
  await suite(`ioredis-cluster-resp${protocol}`, (options) => cluster({ protocol, ...options }));
}
console.log(`ioredis ${version}: ok`);
