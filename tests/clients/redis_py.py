"""redis-py against PROXY_ADDR: sync and asyncio, plain and RedisCluster, in both dialects."""

import asyncio
import os
import sys
import threading
import time

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.cluster import RedisCluster

# Over TLS, and as a user, where these are set.
SECURITY = {}
if os.environ.get("PROXY_CA"):
    SECURITY = {
        "ssl": True,
        "ssl_ca_certs": os.environ["PROXY_CA"],
        "username": os.environ["PROXY_USER"],
        "password": os.environ["PROXY_PASSWORD"],
    }
HOST, _, PORT = os.environ.get("PROXY_ADDR", "127.0.0.1:6380").rpartition(":")
PATIENCE = 20


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


class Names:
    """Keys of one run, which no other run uses."""

    def __init__(self, kind):
        self.prefix = f"clients:redis-py:{kind}:{os.getpid()}"
        self.keys = [f"{self.prefix}:{n}" for n in range(30)]
        self.values = [f"value-{n}".encode() for n in range(30)]

    def __call__(self, name):
        """Keys that share a slot."""
        return f"{{{self.prefix}}}:{name}"



# --- sync


def sync_types(client, names):
    expect("PING", client.ping(), True)
    expect("SET", client.set(names.keys[0], names.values[0]), True)
    expect("GET", client.get(names.keys[0]), names.values[0])
    expect("GET of a missing key", client.get(names("missing")), None)
    expect("HSET", client.hset(names("h"), mapping={"a": 1, "b": "x y"}), 2)
    expect("HGETALL", client.hgetall(names("h")), {b"a": b"1", b"b": b"x y"})
    expect("RPUSH", client.rpush(names("l"), *"abc"), 3)
    expect("LRANGE", client.lrange(names("l"), 0, -1), [b"a", b"b", b"c"])
    expect("SADD", client.sadd(names("s"), 1, 2), 2)
    expect("SMEMBERS", client.smembers(names("s")), {b"1", b"2"})
    expect("ZADD", client.zadd(names("z"), {"a": 1.5, "b": 2}), 2)
    expect("ZSCORE", client.zscore(names("z"), "a"), 1.5)
    pairs = [tuple(pair) for pair in client.zrange(names("z"), 0, -1, withscores=True)]
    expect("ZRANGE", pairs, [(b"a", 1.5), (b"b", 2.0)])
    expect("INCRBYFLOAT", client.incrbyfloat(names("f"), 1.25), 1.25)
    first = client.xadd(names("x"), {"field": "1"})
    expect("XRANGE", client.xrange(names("x")), [(first, {b"field": b"1"})])
    expect("SETBIT", client.setbit(names("bits"), 7, 1), 0)
    expect("PFADD", client.pfadd(names("hll"), 1, 2, 3), 1)
    expect("GEOADD", client.geoadd(names("geo"), (13.361389, 38.115556, "Palermo")), 1)
    expect("GEOPOS of a stranger", client.geopos(names("geo"), "nowhere"), [None])
    expect("EXPIRE", client.expire(names("h"), 100), True)
    expect("TTL", client.ttl(names("h")) in (99, 100), True)
    expect("bytes", client.set(names("bin"), bytes(range(256)) * 300), True)
    expect("bytes back", client.get(names("bin")), bytes(range(256)) * 300)


def sync_pipelines(client, names):
    with client.pipeline(transaction=False) as pipe:
        for key, value in zip(names.keys, names.values):
            pipe.set(key, value)
        for key in names.keys:
            pipe.get(key)
        expect("pipeline", pipe.execute(), [True] * len(names.keys) + names.values)
    with client.pipeline(transaction=False) as pipe:
        pipe.incr(names("l")).get(names.keys[1])
        wrong, right = pipe.execute(raise_on_error=False)
        expect("error in a pipeline", isinstance(wrong, redis.ResponseError), True)
        expect("after an error in a pipeline", right, names.values[1])


def sync_transactions(client, names):
    key = names("counter")
    with client.pipeline(transaction=True) as pipe:
        pipe.set(key, 1).incr(key).get(key)
        # RedisCluster hands the OK on as it came.
        _, *rest = pipe.execute()
        expect("MULTI", rest, [2, b"2"])
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(key)
        read = int(pipe.get(key))
        client.set(key, 10)
        pipe.multi()
        pipe.set(key, read + 1)
        try:
            pipe.execute()
            raise AssertionError("a lost WATCH went through")
        except redis.WatchError:
            pass
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(key)
        read = int(pipe.get(key))
        pipe.multi()
        pipe.set(key, read + 1).get(key)
        expect("WATCH", pipe.execute()[1:], [b"11"])


def next_message(pubsub):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        message = pubsub.get_message(timeout=1)
        if message:
            return message["type"], message["channel"], message["data"]
    raise AssertionError("no message")


def sync_pubsub(client, names):
    channel, pattern = names("channel").encode(), names("pat*").encode()
    with client.pubsub() as pubsub:
        pubsub.subscribe(channel)
        expect("SUBSCRIBE", next_message(pubsub), ("subscribe", channel, 1))
        pubsub.psubscribe(pattern)
        expect("PSUBSCRIBE", next_message(pubsub), ("psubscribe", pattern, 2))
        expect("PUBLISH", client.publish(channel, "hello"), 1)
        expect("message", next_message(pubsub), ("message", channel, b"hello"))
        expect("PUBLISH to a pattern", client.publish(names("pattern"), "again"), 1)
        expect("pmessage", next_message(pubsub), ("pmessage", names("pattern").encode(), b"again"))
        pubsub.ping()
        expect("PING of a subscriber", next_message(pubsub)[0], "pong")
        pubsub.unsubscribe(channel)
        expect("UNSUBSCRIBE", next_message(pubsub), ("unsubscribe", channel, 1))


def sync_blocking(client, names):
    got = []
    waiter = threading.Thread(target=lambda: got.append(client.blpop([names("q")], timeout=PATIENCE)))
    waiter.start()
    client.rpush(names("q"), "job")
    waiter.join()
    queue, job = got[0]
    expect("BLPOP", (queue, job), (names("q").encode(), b"job"))
    began = time.monotonic()
    expect("BLPOP of nothing", client.blpop([names("q")], timeout=0.2), None)
    expect("its timeout", 0.15 < time.monotonic() - began < PATIENCE, True)
    client.xgroup_create(names("st"), "group", "$", mkstream=True)
    first = client.xadd(names("st"), {"n": 1})
    read = client.xreadgroup("group", "me", {names("st"): ">"}, block=5000)
    streams = read if isinstance(read, list) else list(read.items())
    name, entries = streams[0]
    entries = entries if entries and isinstance(entries[0], tuple) else entries[0]
    expect("XREADGROUP", (name, entries), (names("st").encode(), [(first, {b"n": b"1"})]))
    expect("XACK", client.xack(names("st"), "group", first), 1)


def sync_scripts(client, names):
    script = client.register_script(f"-- {names.prefix}\nreturn {{KEYS[1], ARGV[1]}}")
    # EVALSHA first; the client loads the script when it is told NOSCRIPT.
    expect("script", script(keys=[names("k")], args=["v"], client=client), [names("k").encode(), b"v"])
    expect("EVAL", client.eval("return redis.call('GET', KEYS[1])", 1, names.keys[2]), names.values[2])
    expect("SCRIPT EXISTS", client.script_exists(script.sha), [True])


def sync_scan(client, names):
    found = set(client.scan_iter(match=f"{names.prefix}:*", count=50))
    expect("SCAN", found >= {key.encode() for key in names.keys}, True)
    expect("HSCAN", dict(client.hscan_iter(names("h"))), {b"a": b"1", b"b": b"x y"})
    expect("MGET", client.mget(names("k1"), names("f")), [None, b"1.25"])


def sync_reconnect(client, names):
    """A connection that is cut is made again, with all that belongs to its handshake."""
    with redis.Redis(host=HOST, port=int(PORT), **SECURITY) as other:
        mine = [line for line in other.client_list() if line["name"] == names.prefix.replace(":", "-")]
        expect("CLIENT SETNAME of the handshake", len(mine) > 0, True)
        for line in mine:
            other.client_kill_filter(_id=line["id"])
    expect("after CLIENT KILL", client.get(names.keys[3]), names.values[3])


def sync_plain(protocol):
    names = Names(f"sync{protocol}")
    name = names.prefix.replace(":", "-")
    # Every command is preceded by the client's own health check.
    options = {"protocol": protocol, "client_name": name, "health_check_interval": 0.000001, "socket_timeout": PATIENCE}
    with redis.Redis(host=HOST, port=int(PORT), **SECURITY, **options) as client:
        for part in (sync_types, sync_pipelines, sync_transactions, sync_pubsub, sync_blocking, sync_scripts, sync_scan, sync_reconnect):
            part(client, names)
        # Over all shards, with a key asked for twice and one that is not there.
        missing = names("missing")
        expect("MGET", client.mget([*names.keys, names.keys[3], missing]), [*names.values, names.values[3], None])
        expect("CLIENT SETINFO of the handshake", client.client_info()["lib-name"].startswith("redis-py"), True)
        expect("DEL", client.delete(*names.keys), len(names.keys))


def sync_cluster(protocol):
    names = Names(f"cluster{protocol}")
    options = {"protocol": protocol, "client_name": names.prefix.replace(":", "-"), "socket_timeout": PATIENCE}
    with RedisCluster(host=HOST, port=int(PORT), **SECURITY, **options) as client:
        expect("nodes", [(node.host, node.port, node.server_type) for node in client.get_nodes()], [(HOST, int(PORT), "primary")])
        for part in (sync_types, sync_pipelines, sync_transactions, sync_pubsub, sync_blocking, sync_scripts, sync_scan, sync_reconnect):
            part(client, names)
        expect("MGET", client.mget_nonatomic(names.keys), names.values)
        expect("DEL", client.delete(*names.keys), len(names.keys))
        expect("sharded PUBLISH", client.spublish(names("sharded"), "nobody"), 0)


# --- asyncio


async def async_suite(client, names):
    expect("PING", await client.ping(), True)
    expect("SET", await client.set(names.keys[0], names.values[0]), True)
    expect("GET", await client.get(names.keys[0]), names.values[0])
    expect("HSET", await client.hset(names("h"), mapping={"a": 1}), 1)
    expect("HGETALL", await client.hgetall(names("h")), {b"a": b"1"})
    async with client.pipeline(transaction=False) as pipe:
        for key, value in zip(names.keys, names.values):
            pipe.set(key, value)
        expect("pipeline", await pipe.execute(), [True] * len(names.keys))
    async with client.pipeline(transaction=True) as pipe:
        pipe.set(names("counter"), 1).incr(names("counter"))
        expect("MULTI", (await pipe.execute())[1:], [2])
    # Many connections of the pool at once.
    expect("gather", await asyncio.gather(*(client.get(key) for key in names.keys)), names.values)
    waiter = asyncio.ensure_future(client.blpop([names("q")], timeout=PATIENCE))
    await client.rpush(names("q"), "job")
    expect("BLPOP", tuple(await waiter), (names("q").encode(), b"job"))
    script = client.register_script(f"-- async {names.prefix}\nreturn ARGV[1]")
    expect("script", await script(keys=[names("k")], args=["v"], client=client), b"v")
    found = {key async for key in client.scan_iter(match=f"{names.prefix}:*", count=50)}
    expect("SCAN", found >= {key.encode() for key in names.keys}, True)


async def async_plain(protocol):
    names = Names(f"async{protocol}")
    async with redis.asyncio.Redis(host=HOST, port=int(PORT), **SECURITY, protocol=protocol, health_check_interval=1) as client:
        await async_suite(client, names)
        channel = names("channel").encode()
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            expect("SUBSCRIBE", (await pubsub.get_message(timeout=PATIENCE))["type"], "subscribe")
            expect("PUBLISH", await client.publish(channel, "hello"), 1)
            expect("message", (await pubsub.get_message(timeout=PATIENCE))["data"], b"hello")
        # A request that is given up leaves no reply behind for the next one.
        waiter = asyncio.ensure_future(client.blpop([names("nothing")], timeout=PATIENCE))
        await asyncio.sleep(0.05)
        waiter.cancel()
        expect("after a cancelled BLPOP", await client.get(names.keys[4]), names.values[4])
        expect("MGET", await client.mget([*names.keys, names("missing")]), [*names.values, None])
        expect("DEL", await client.delete(*names.keys), len(names.keys))


async def async_cluster(protocol):
    names = Names(f"async-cluster{protocol}")
    async with AsyncCluster(host=HOST, port=int(PORT), **SECURITY, protocol=protocol) as client:
        await async_suite(client, names)
        expect("DEL", await client.delete(*names.keys), len(names.keys))


def run(what, call):
    try:
        call()
    except (redis.RedisError, AssertionError, TimeoutError, OSError) as error:
        sys.exit(f"redis-py: {what}: {type(error).__name__}: {error}")


for dialect in (2, 3):
    run(f"sync RESP{dialect}", lambda: sync_plain(dialect))
    run(f"RedisCluster RESP{dialect}", lambda: sync_cluster(dialect))
    run(f"asyncio RESP{dialect}", lambda: asyncio.run(asyncio.wait_for(async_plain(dialect), PATIENCE)))
    run(f"asyncio RedisCluster RESP{dialect}", lambda: asyncio.run(asyncio.wait_for(async_cluster(dialect), PATIENCE)))
print(f"redis-py {redis.__version__}: ok")
