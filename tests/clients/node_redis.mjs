// node-redis against PROXY_ADDR: createClient, createClientPool and createCluster, in both dialects.
import { createRequire } from "node:module";
import { data, expecter, fail, host, next, port, security } from "./check.mjs";

const require = createRequire(process.env.CLIENT_MODULES ?? import.meta.url);
const { createClient, createClientPool, createCluster, defineScript } = require("redis");
const { version } = require("redis/package.json");
const expect = expecter("node-redis");
const url = `redis${security ? "s" : ""}://${host}:${port}`;
const { ca, username, password } = security ?? {};
const secured = security ? { username, password, socket: { tls: true, ca } } : {};

// Set while a connection is expected to be cut.
let cut = false;

async function open(client, name) {
  client.on("error", (error) => cut || fail(name, error.stack));
  await client.connect();
  return client;
}

const script = (prefix) =>
  defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: `-- ${prefix}\nreturn {KEYS[1], ARGV[1]}`,
    parseCommand(parser, key, value) {
      parser.pushKey(key);
      parser.push(value);
    },
    transformReply: (reply) => reply,
  });

// What the plain client and that for clusters have in common.
async function suite(name, client, all) {
  const { prefix, keys, values, missing, tagged } = all;

  // Data types.
  expect("SET", await client.set(keys[0], values[0]), "OK");
  expect("GET", await client.get(keys[0]), values[0]);
  expect("GET of a missing key", await client.get(missing), null);
  expect("HSET", await client.hSet(tagged("h"), { a: 1, b: "x y" }), 2);
  expect("HGETALL", { ...(await client.hGetAll(tagged("h"))) }, { a: "1", b: "x y" });
  expect("RPUSH", await client.rPush(tagged("l"), ["a", "b", "c"]), 3);
  expect("LRANGE", await client.lRange(tagged("l"), 0, -1), ["a", "b", "c"]);
  expect("SADD", await client.sAdd(tagged("s"), ["1", "2"]), 2);
  expect("SMEMBERS", [...(await client.sMembers(tagged("s")))].sort(), ["1", "2"]);
  expect("ZADD", await client.zAdd(tagged("z"), [{ score: 1.5, value: "a" }]), 1);
  expect("ZRANGE", await client.zRangeWithScores(tagged("z"), 0, -1), [{ value: "a", score: 1.5 }]);
  const id = await client.xAdd(tagged("x"), "*", { field: "1" });
  const [entry] = await client.xRange(tagged("x"), "-", "+");
  expect("XRANGE", [entry.id, { ...entry.message }], [id, { field: "1" }]);

  // Pipelines: what is asked in one turn goes out together.
  expect("SETs without waiting", await Promise.all(keys.map((key, n) => client.set(key, values[n]))), keys.map(() => "OK"));
  expect("GETs without waiting", await Promise.all(keys.map((key) => client.get(key))), values);
  const [wrong, right] = await Promise.allSettled([client.incr(tagged("l")), client.get(keys[1])]);
  expect("error in a pipeline", wrong.reason?.message.startsWith("WRONGTYPE"), true);
  expect("after an error in a pipeline", right.value, values[1]);

  // Transactions.
  const counter = tagged("counter");
  expect("MULTI", await client.multi().set(counter, "1").incr(counter).exec(), ["OK", 2]);

  // Scripts: EVALSHA, then EVAL on NOSCRIPT.
  expect("script", await client.echoes(tagged("k"), "v"), [tagged("k"), "v"]);
  expect("script again", await client.echoes(tagged("k"), "w"), [tagged("k"), "w"]);

  // Pub/sub.
  const subscriber = client.duplicate();
  await open(subscriber, name);
  const heard = [];
  let wake;
  const listener = (message, channel) => {
    heard.push([channel, message]);
    wake?.();
  };
  const hears = async (count) => {
    while (heard.length < count) await new Promise((resolve) => (wake = resolve));
    return heard.splice(0);
  };
  await subscriber.subscribe(`${prefix}:c1`, listener);
  await subscriber.pSubscribe(`${prefix}:p*`, listener);
  await client.publish(`${prefix}:c1`, "hello");
  expect("message", await hears(1), [[`${prefix}:c1`, "hello"]]);
  await client.publish(`${prefix}:pattern`, "again");
  expect("pmessage", await hears(1), [[`${prefix}:pattern`, "again"]]);
  await subscriber.sSubscribe(`${prefix}:sharded`, listener);
  expect("SPUBLISH", await client.sPublish(`${prefix}:sharded`, "third"), 1);
  expect("smessage", await hears(1), [[`${prefix}:sharded`, "third"]]);
  await subscriber.unsubscribe();
  await subscriber.close(); // after the reply to a PING that may be under way
}

async function plain(protocol) {
  const name = `node-redis-resp${protocol}`;
  const all = data(name);
  const { prefix, keys, values, missing, tagged } = all;
  const options = { url, ...secured, RESP: protocol, name, pingInterval: 10, scripts: { echoes: script(prefix) } };
  const client = await open(createClient(options), name);
  expect("PING", await client.ping(), "PONG");
  await suite(name, client, all);

  const pipeline = client.multi();
  keys.forEach((key, n) => pipeline.set(key, values[n]));
  keys.forEach((key) => pipeline.get(key));
  expect("pipeline", await pipeline.execAsPipeline(), [...keys.map(() => "OK"), ...values]);

  const counter = tagged("counter");
  const other = await open(client.duplicate(), name);
  await client.watch(counter);
  await other.set(counter, "10");
  const lost = await client.multi().incr(counter).exec().catch((error) => error);
  expect("lost WATCH", lost.constructor.name, "WatchError");
  await client.watch(counter);
  expect("WATCH", await client.multi().incr(counter).exec(), [11]);

  const popped = other.blPop(tagged("q"), 20);
  expect("RPUSH", await client.rPush(tagged("q"), "job"), 1);
  expect("BLPOP", { ...(await popped) }, { key: tagged("q"), element: "job" });
  expect("BLPOP of nothing", await other.blPop(tagged("q"), 0.1), null);

  const found = new Set();
  for await (const some of client.scanIterator({ MATCH: `${prefix}:*`, COUNT: 50 })) some.forEach((key) => found.add(key));
  expect("SCAN", keys.filter((key) => !found.has(key)), []);

  // A connection that is cut is made again, and its handshake with it. The client reports the cut, too.
  expect("CLIENT SETNAME of the handshake", await client.clientGetName(), name);
  expect("CLIENT SETINFO of the handshake", (await client.clientInfo()).libName?.startsWith("node-redis"), true);
  cut = true;
  const back = next(client, "ready");
  await other.sendCommand(["CLIENT", "KILL", "ID", String(await client.clientId())]);
  await back;
  cut = false;
  expect("after CLIENT KILL", await client.get(keys[3]), values[3]);
  expect("name after CLIENT KILL", await client.clientGetName(), name);

  // Over all shards, with a key asked for twice and one that is not there.
  expect("MGET", await client.mGet([...keys, keys[3], missing]), [...values, values[3], null]);
  expect("DEL", await client.del(keys), keys.length);
  await other.close();
  await client.close();

  const pool = createClientPool({ url, ...secured, RESP: protocol }, { minimum: 1, maximum: 8 });
  await pool.connect();
  expect("pool", await Promise.all(keys.map((key) => pool.set(key, key))), keys.map(() => "OK"));
  expect("DEL through a pool", await pool.del(keys), keys.length);
  await pool.close();
}

async function cluster(protocol) {
  const name = `node-redis-cluster-resp${protocol}`;
  const all = data(name);
  const options = { rootNodes: [{ url, ...secured }], defaults: { RESP: protocol, ...secured }, RESP: protocol, scripts: { echoes: script(all.prefix) } };
  const client = await open(createCluster(options), name);
  expect("masters", client.masters.map((node) => node.address), [`${host}:${port}`]);
  await suite(name, client, all);
  await client.close();
}

for (const protocol of [2, 3]) {
  await plain(protocol);
  await cluster(protocol);
}
console.log(`node-redis ${version}: ok`);
