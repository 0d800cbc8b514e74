#!/usr/bin/env python3
"""Measures what reads of mapped keys cost: fills, hits beside slow queries, hits against plain keys. See README.md."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import load
import stack
import wire

HERE = pathlib.Path(__file__).resolve().parent
VALUE = 32          # bytes of each row's value
BATCH = 1000        # keys of one MGET of the fill
SCHEMA = """
create table item (id bigint primary key, v text not null);
insert into item select i, lpad(i::text, {value}, 'x') from generate_series(1, {rows}) i;
analyze item;
create function gate(seconds float8) returns int volatile language plpgsql as
    $$ begin perform pg_sleep(seconds); return 1; end $$;
"""
CONFIG = """
[server]
listen = "127.0.0.1:{port}"
workers = {workers}
[http]
listen = "127.0.0.1:{http}"
[read_through]
queue = 1000000
timeout = "20s"
[database]
statement_timeout = "10s"
[[mapping]]
name = "item"
key = "item:{{id}}"
table = "item"
id = "bigint"
format = "text"
column = "v"
ttl = "1h"
[[mapping]]
name = "slow"
key = "slow:{{id}}"
id = "bigint"
format = "text"
column = "v"
load = "select i.id, i.v from item i, (select gate(1)) g where i.id = any($1)"
ttl = "1h"
"""


def main():
    options = parse(sys.argv[1:])
    try:
        with stack.Stack() as servers:
            bed = Bed(servers, options)
            figures = {}
            for name, measure in MEASURES.items():
                if name in options.only:
                    print(f"reads: {name}", file=sys.stderr, flush=True)
                    figures[name] = measure(bed, options)
            print(table(figures))
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1))
            return 0
    except (stack.StackError, RuntimeError, OSError) as error:
        print(f"reads: {error}", file=sys.stderr)
        return 2


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE.parent / "target/release/dsproxy", help="the dsproxy to measure")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES), help=f"comma separated, of {','.join(MEASURES)}")
    parser.add_argument("--rows", type=int, default=500_000, help="rows of the table, and keys that are filled (default 500,000)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds of the comparisons (default 7)")
    parser.add_argument("--requests", type=int, default=400_000, help="GETs of one run of a comparison (default 400,000)")
    parser.add_argument("--seconds", type=float, default=8, help="length of each latency probe (default 8)")
    parser.add_argument("--workers", type=int, default=1, help="data threads of the proxy (default 1)")
    parser.add_argument("--quick", action="store_true", help="small numbers: does it work, not how fast is it")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    if options.quick:
        options.rows, options.rounds, options.requests, options.seconds = 20_000, 2, 20_000, 2.5
    return options


class Bed:
    """A cluster, a Postgres and a proxy with mappings (`dsproxy dev`), and a proxy without any before the same cluster."""

    def __init__(self, servers, options):
        port, http = servers.free_port(), servers.free_port()
        home = servers.dir / "dev"
        (home / "migrations").mkdir(parents=True)
        (home / "migrations" / "0001_reads.up.sql").write_text(SCHEMA.format(value=VALUE, rows=options.rows))
        (home / "migrations" / "0001_reads.down.sql").write_text("drop table item; drop function gate;")
        (home / "proxy.toml").write_text(CONFIG.format(port=port, http=http, workers=options.workers))
        argv = [str(options.binary), "dev", "--config", "proxy.toml", "--migrations", "migrations"]
        log = open(servers.dir / "dev.log", "wb")
        self.child = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home, preexec_fn=stack.die_with_parent)
        servers.children.append(self.child)
        self.port, self.http, self.pid = port, http, self.child.pid
        deadline = time.monotonic() + 120
        while not self.ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise stack.StackError((servers.dir / "dev.log").read_text(errors="replace")[-2000:])
            time.sleep(0.1)
        self.nodes = self.node_ports()
        self.plain = servers.dsproxy("plain", options.binary, options.workers, self.nodes)

    def ready(self):
        try:
            with wire.Connection(self.port, timeout=2) as client:
                return client.call("GET", "item:1") is not None
        except (OSError, wire.ReplyError):
            return False

    def node_ports(self):
        """Ports of the cluster's primaries, which the proxy does not show to clients: its metrics name them."""
        nodes = {line.split('node="')[1].split('"')[0] for line in self.metrics() if 'node="' in line}
        return sorted(int(node.rsplit(":", 1)[1]) for node in nodes)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            return answer.read().decode().splitlines()

    def metric(self, start):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metrics() if line.startswith(start))


def fill(bed, options):
    """Every row is asked for once, by MGETs of many keys over a few connections; the clock stops when all are stored."""
    with wire.Connection(bed.port) as client:
        client.call("FLUSHALL")
    stored = lambda: bed.metric('dsproxy_cache_sets_total{mapping="item"}')
    before, queries = stored(), bed.metric('dsproxy_query_duration_seconds_count{kind="load",mapping="item"}')
    length = len(b"*%d\r\n" % BATCH) + BATCH * (len(b"$%d\r\n" % VALUE) + VALUE + 2)
    chunks = [range(start, start + BATCH) for start in range(1, options.rows - BATCH + 2, BATCH)]
    streams = 8

    def ask(mine):
        with wire.Connection(bed.port, timeout=60) as client:
            requests = [wire.encode("MGET", *(f"item:{n}" for n in chunk)) for chunk in mine]
            barrier.wait()
            window = 4
            for request in requests[:window]:
                client.sock.sendall(request)
            for at in range(len(requests)):
                reply = client.file.read(length)
                if len(reply) != length or b"$-1" in reply:
                    raise RuntimeError(f"an answer is wrong: {reply[:200]!r}")
                if at + window < len(requests):
                    client.sock.sendall(requests[at + window])

    barrier = threading.Barrier(streams + 1)
    threads = [threading.Thread(target=ask, args=(chunks[n::streams],)) for n in range(streams)]
    cpu = load.cpu_ns(bed.pid)
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    answered = time.monotonic() - started
    keys = len(chunks) * BATCH
    while stored() - before < keys and time.monotonic() - started < 120:
        time.sleep(0.005)
    took = time.monotonic() - started
    queries = bed.metric('dsproxy_query_duration_seconds_count{kind="load",mapping="item"}') - queries
    if stored() - before < keys:
        raise RuntimeError(f"only {stored() - before:.0f} of {keys} keys were stored")
    return {"keys": keys, "answered/s": round(keys / answered), "filled/s": round(keys / took), "goal filled/s": 100_000,
            "queries": int(queries), "proxy CPU us/key": round((load.cpu_ns(bed.pid) - cpu) / 1000 / keys, 2)}


def slow_database(bed, options):
    """Latency of hits, alone and while every query takes 1 s: over another connection, and pipelined behind the slow miss."""
    def probe(client, until):
        samples = []
        while time.monotonic() < until:
            begun = time.perf_counter()
            client.call("GET", "item:1")
            samples.append(time.perf_counter() - begun)
        return samples

    ids = iter(range(1, options.rows))
    stop = threading.Event()

    def miss():
        with wire.Connection(bed.port, timeout=30) as client:
            while not stop.is_set():
                client.call("GET", f"slow:{next(ids)}")

    with wire.Connection(bed.port) as client:
        client.call("GET", "item:1")
        alone = probe(client, time.monotonic() + options.seconds)
        threads = [threading.Thread(target=miss) for _ in range(32)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        beside = probe(client, time.monotonic() + options.seconds)
        stop.set()
        for thread in threads:
            thread.join()
    behind = []
    with wire.Connection(bed.port, timeout=30) as client:
        for _ in range(max(2, int(options.seconds / 3))):
            begun = time.perf_counter()
            client.sock.sendall(wire.encode("GET", f"slow:{next(ids)}") + wire.encode("GET", "item:1") * 1000)
            client.read()
            first = time.perf_counter()
            for _ in range(1000):
                client.read()
            behind.append((first - begun, time.perf_counter() - first))
    of = lambda samples, q: round(statistics.quantiles(samples, n=1000)[q - 1] * 1e6)
    return {"hits alone, p50/p99 us": f"{of(alone, 500)}/{of(alone, 990)}",
            "beside 32 misses of 1 s, p50/p99 us": f"{of(beside, 500)}/{of(beside, 990)}",
            "a miss with 1,000 hits behind it, s": round(max(first for first, _ in behind), 3),
            "its 1,000 hits after it, ms": round(max(rest for _, rest in behind) * 1000, 1)}


def half_missing(bed, options):
    """An MGET of 100 keys of which 50 are missing, against the time of a hit at a node and of the query."""
    with wire.Connection(bed.port, timeout=30) as client:
        client.call("FLUSHALL")
        samples, start = [], 1
        counted = lambda what: bed.metric(f'dsproxy_query_duration_seconds_{what}{{kind="load",mapping="item"}}')
        client.call("MGET", *(f"item:{n}" for n in range(1, 51)))
        count, total = counted("count"), counted("sum")
        for start in range(100, min(options.rows - 100, 20_000), 50):
            keys = [f"item:{n}" for n in range(1, 51)] + [f"item:{n}" for n in range(start, start + 50)]
            begun = time.perf_counter()
            values = client.call("MGET", *keys)
            samples.append(time.perf_counter() - begun)
            if None in values:
                raise RuntimeError("a row is missing")
            time.sleep(0.001)
        query = (counted("sum") - total) / (counted("count") - count)
        hits = []
        keys = [f"item:{n}" for n in range(1, 101)]
        client.call("MGET", *keys)
        for _ in range(300):
            begun = time.perf_counter()
            client.call("MGET", *keys)
            hits.append(time.perf_counter() - begun)
    hit = statistics.median(hits)
    return {"median us": round(statistics.median(samples) * 1e6), "all 100 cached, us": round(hit * 1e6), "query, us": round(query * 1e6),
            "goal, us": round((2 * hit + query + 0.001) * 1e6)}


def storm(bed, options):
    """10,000 GETs of one missing key at once: how many queries."""
    counted = lambda: bed.metric('dsproxy_query_duration_seconds_count{kind="load",mapping="slow"}')
    before, begun = counted(), time.monotonic()
    clients = [wire.Connection(bed.port, timeout=30) for _ in range(100)]
    for client in clients:
        client.sock.sendall(wire.encode("GET", f"slow:{options.rows}") * 100)
    for client in clients:
        for _ in range(100):
            client.read()
        client.close()
    return {"gets": 10_000, "queries": int(counted() - before), "seconds": round(time.monotonic() - begun, 2)}


def hits(bed, options):
    """CPU of the proxy per GET: of a mapped key against a plain one, and of both against a proxy without mappings."""
    with wire.Connection(bed.port) as client:
        value = client.call("GET", "item:1")
        # In the slot of the other, so that the same node answers.
        plain = next(name for name in (f"plain:{n}" for n in range(1_000_000)) if wire.slot_of(name) == wire.slot_of("item:1"))
        gone = next(
            name for name in (f"gone:{n}" for n in range(1_000_000)) if wire.slot_of(name) == wire.slot_of("item:1"))
        client.call("SET", plain, value)
    cases = {"mapped hit": (bed.port, bed.pid, "item:1"), "plain hit": (bed.port, bed.pid, plain), "plain nil": (bed.port, bed.pid, gone),
             "hit, no mappings": (bed.plain.port, bed.plain.pid, plain), "nil, no mappings": (bed.plain.port, bed.plain.pid, gone)}
    figures = {}
    for clients, depth in ((50, 1), (50, 16)):
        samples = {name: [] for name in cases}
        for _ in range(options.rounds):
            for name, (port, pid, key) in cases.items():
                before = load.cpu_ns(pid)
                argv = ["redis-benchmark", "-p", str(port), "-c", str(clients), "-P", str(depth), "-n", str(options.requests), "-q", "GET", key]
                done = subprocess.run(argv, capture_output=True, timeout=300)
                if done.returncode:
                    raise RuntimeError(done.stderr.decode(errors="replace") or "redis-benchmark failed")
                samples[name].append((load.cpu_ns(pid) - before) / 1000 / options.requests)
        middle = {name: statistics.median(values) for name, values in samples.items()}
        for name, us in middle.items():
            figures[f"P={depth} {name}, us"] = round(us, 3)
        figures[f"P={depth} mapped / plain hit (goal 1.03)"] = round(middle["mapped hit"] / middle["plain hit"], 3)
        figures[f"P={depth} plain nil / without mappings (goal 1.03)"] = round(middle["plain nil"] / middle["nil, no mappings"], 3)
        figures[f"P={depth} plain hit / without mappings"] = round(middle["plain hit"] / middle["hit, no mappings"], 3)
    return figures


MEASURES = {"fill": fill, "slow_database": slow_database, "half_missing": half_missing, "storm": storm, "hits": hits}


def table(figures):
    lines = ["| what | figure | value |", "| --- | --- | --- |"]
    for name, values in figures.items():
        lines.extend(f"| {name} | {figure} | {value} |" for figure, value in values.items())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
