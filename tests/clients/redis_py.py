"""redis-py with its defaults (opens with HELLO 3), sync and asyncio, against PROXY_ADDR."""

import asyncio
import os
import sys

import redis
import redis.asyncio

HOST, _, PORT = os.environ.get("PROXY_ADDR", "127.0.0.1:6380").rpartition(":")
PREFIX = f"clients:redis-py:{os.getpid()}"
KEYS = [f"{PREFIX}:{n}" for n in range(30)]
VALUES = [f"value-{n}".encode() for n in range(30)]


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"redis-py: {what}: got {got!r}, wanted {wanted!r}")


def sync_client():
    with redis.Redis(host=HOST, port=int(PORT)) as client:
        expect("PING", client.ping(), True)
        expect("SET", client.set(KEYS[0], VALUES[0]), True)
        expect("GET", client.get(KEYS[0]), VALUES[0])
        expect("GET of a missing key", client.get(f"{PREFIX}:missing"), None)
        with client.pipeline(transaction=False) as pipe:
            for key, value in zip(KEYS, VALUES):
                pipe.set(key, value)
            for key in KEYS:
                pipe.get(key)
            expect("pipeline", pipe.execute(), [True] * len(KEYS) + VALUES)
        # Over all shards, with a key asked for twice and one that is not there.
        expect("MGET", client.mget([*KEYS, KEYS[3], f"{PREFIX}:missing"]), [*VALUES, VALUES[3], None])
        expect("DEL", client.delete(*KEYS), len(KEYS))


async def async_client():
    async with redis.asyncio.Redis(host=HOST, port=int(PORT)) as client:
        expect("async PING", await client.ping(), True)
        expect("async SET", await client.set(KEYS[0], VALUES[0]), True)
        expect("async GET", await client.get(KEYS[0]), VALUES[0])
        async with client.pipeline(transaction=False) as pipe:
            for key, value in zip(KEYS, VALUES):
                pipe.set(key, value)
            expect("async pipeline", await pipe.execute(), [True] * len(KEYS))
        expect("async MGET", await client.mget([*KEYS, KEYS[3], f"{PREFIX}:missing"]), [*VALUES, VALUES[3], None])
        # Many connections of the pool at once.
        expect("async gather", await asyncio.gather(*(client.get(key) for key in KEYS)), VALUES)
        expect("async DEL", await client.delete(*KEYS), len(KEYS))


try:
    sync_client()
    asyncio.run(asyncio.wait_for(async_client(), 20))
except (redis.RedisError, TimeoutError) as error:
    sys.exit(f"redis-py: {type(error).__name__}: {error}")
print(f"redis-py {redis.__version__}: ok")
