#!/usr/bin/env python3
"""Measures the writing side: how fast rows reach Postgres, how fast writes are acknowledged, what an outage costs.

It starts servers of its own (a Redis Cluster and a Postgres that syncs, by the program's own keeper) and takes them down.
Every row of the table at the end has its goal from the project's issue beside it.
"""

import argparse
import json
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import wire
from children import die_with_parent
from load import rss_bytes

HERE = pathlib.Path(__file__).resolve().parent
VALUE = '{"name":"0123456789abcdef","n":7}'
PATIENCE = 600  # seconds of any wait
MAPPINGS = {"item": "journal", "memo": "memory"}
TABLES = "".join(f"create table {name} (id bigint primary key, name text not null, n int not null);" for name in [*MAPPINGS, "other"])
ROOMY = "queue_rows = 4000000\nqueue_bytes = \"4gb\"\n"  # a backlog of a million is more than the default allows


class Failure(Exception):
    """It could not be measured; the message says why."""


class Servers:
    """The keeper's servers: they end with its last connection."""

    def __init__(self, binary):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dsproxy-writes-"))
        root = self.dir / "k"
        root.mkdir()
        options = {"durable": True, "node_timeout_ms": 5000}
        self.process = subprocess.Popen([binary, "keep-stack", root, json.dumps(options)], stderr=open(self.dir / "keeper.log", "wb"))
        self.socket = socket.socket(socket.AF_UNIX)
        wait("the servers", lambda: self.connect(root / "keeper.sock"))
        self.file = self.socket.makefile("rw")
        info = self.ask("info")
        self.nodes, self.url = info["redis_nodes"], info["database_url"]
        sql(self.url, TABLES)

    def connect(self, path):
        if self.process.poll() is not None:
            raise Failure((self.dir / "keeper.log").read_text())
        try:
            self.socket.connect(str(path))
            return True
        except OSError:
            return False

    def ask(self, request):
        self.file.write(request + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        answer = answer.get("Info") or answer.get("info") or answer
        if "redis_nodes" not in answer:
            raise Failure(f"{request}: {answer}")
        return answer

    def end(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.process.wait(60)
        shutil.rmtree(self.dir, ignore_errors=True)


class Proxy:
    """A proxy with a journal of its own; use as a context manager."""

    def __init__(self, binary, servers, write_behind="", journal=""):
        self.binary, self.dir = binary, pathlib.Path(tempfile.mkdtemp(prefix="proxy-", dir=servers.dir))
        self.port, self.http = free_port(), free_port()
        nodes = ", ".join(f'"{node}"' for node in servers.nodes)
        text = f"""
[server]
listen = "127.0.0.1:{self.port}"
workers = 2
[http]
listen = "127.0.0.1:{self.http}"
[upstream]
nodes = [{nodes}]
[database]
url = "{servers.url}"
statement_timeout = "10m"
[write_behind]
shutdown_timeout = "10m"
{write_behind}
[journal]
data_dir = "{self.dir}/data"
max_bytes = "4gb"
{journal}
"""
        for name, durability in {**MAPPINGS, "other": "journal"}.items():
            text += f"""
[[mapping]]
name = "{name}"
key = "{name}:{{id}}"
table = "{name}"
id = "bigint"
write = "behind"
durability = "{durability}"
ttl = "60s"
"""
        (self.dir / "proxy.toml").write_text(text)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def start(self):
        log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen([self.binary, "serve", "--config", self.dir / "proxy.toml"], stdout=log, stderr=log,
                                        preexec_fn=die_with_parent)

    def ready(self):
        if self.process.poll() is not None:
            raise Failure((self.dir / "log").read_text()[-2000:])
        try:
            return b" 200 " in http_get(self.http, "/health/ready")[:20]
        except OSError:
            return False

    def metric(self, name):
        """The sum of all series of this name."""
        lines = http_get(self.http, "/metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def queued(self):
        return int(self.metric("dsproxy_write_behind_queue_rows"))


def http_get(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def wait(what, ready, step=0.02):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {PATIENCE} s")
        time.sleep(step)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sql(url, text):
    done = subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", url, "-c", text], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{text}: {done.stderr}")
    return done.stdout.strip()


class Held:
    """While it is entered, nobody can write to a table."""

    def __init__(self, url, table):
        self.command, self.table = ["psql", "-qAtX", url], table

    def __enter__(self):
        self.psql = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.psql.stdin.write(f"begin; lock table {self.table}; select 'held';\n")
        self.psql.stdin.flush()
        self.psql.stdout.readline()

    def __exit__(self, *_):
        self.psql.communicate("rollback;\n")


def fill(proxy, count, prefix="item:1", clients=64, depth=32):
    """So many writes of keys that hardly repeat; writes per second."""
    return sets(proxy, count, prefix, clients, depth, 1, 1_000_000_000)


def sets(proxy, count, prefix, clients, depth, generators, keys):
    command = ["redis-benchmark", "-p", proxy.port, "-c", clients // generators, "-P", depth, "-n", count // generators, "-r", keys,
               "--csv", "SET", f"{prefix}__rand_int__", VALUE]
    began = time.monotonic()
    running = [subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=die_with_parent) for _ in range(generators)]
    rates = []
    for process in running:
        out, err = process.communicate(timeout=PATIENCE)
        rows = [line for line in out.splitlines() if line.startswith('"') and "rps" not in line]
        if process.returncode or not rows or "rror" in err + out:
            raise Failure(f"redis-benchmark: {(out + err)[-400:]}")
        rates.append(float(rows[-1].rsplit(",", 7)[1].strip('"')))
    assert time.monotonic() > began
    return sum(rates)


def drain(binary, servers, rows, max_batch):
    """Rows per second into Postgres, and the seconds that `rows` take."""
    sql(servers.url, "truncate item; truncate dsproxy_versions" if has_ledger(servers) else "truncate item")
    with Proxy(binary, servers, f"{ROOMY}max_batch_rows = {max_batch}\n", "high_water = 1.0\n") as proxy:
        wait("the proxy", proxy.ready)
        with Held(servers.url, "item"):
            fill(proxy, rows)
            waiting = proxy.queued()
        began = time.monotonic()
        wait("the drain", lambda: proxy.queued() == 0, 0.05)
        took = time.monotonic() - began
        count = int(sql(servers.url, "select count(*) from item"))
    if count < 0.98 * waiting:
        raise Failure(f"{waiting} rows waited, and {count} are there")
    return waiting / took, took


def has_ledger(servers):
    return sql(servers.url, "select to_regclass('dsproxy_versions') is not null") == "t"


def restart(binary, servers, rows):
    """Seconds from the start of the process until it serves a write that it brought back."""
    quiet = 'max_batch_rows = 100000\nbatch_rows = 100000\nbatch_interval = "1h"\n'
    with Proxy(binary, servers, ROOMY + quiet, "high_water = 1.0\n") as proxy:
        wait("the proxy", proxy.ready)
        fill(proxy, rows // 2)
        fill(proxy, rows - rows // 2, "other:1")
        with wire.Connection(proxy.port) as client:
            client.call("SET", "item:77", VALUE)
        waiting = proxy.queued()
        proxy.process.kill()
        proxy.process.wait()
        began = time.monotonic()
        proxy.start()
        wait("the proxy", lambda: serves(proxy, "item:77"), 0.005)
        took = time.monotonic() - began
        wait("it is ready", proxy.ready)
        if proxy.queued() < waiting:
            raise Failure(f"{waiting} rows waited before, {proxy.queued()} after the restart")
    return took, waiting


def serves(proxy, key):
    try:
        with wire.Connection(proxy.port) as client:
            return client.call("GET", key) is not None
    except (OSError, wire.ReplyError):
        return False


def acknowledged(binary, servers, count, rounds):
    """SETs per second at 256 connections, by durability; plain keys first. Kinds take turns."""
    rates = {"plain": [], "memory": [], "journal": []}
    prefixes = {"plain": "plain:1", "memory": "memo:1", "journal": "item:1"}
    with Proxy(binary, servers, ROOMY, "high_water = 1.0\n") as proxy:
        wait("the proxy", proxy.ready)
        batches = [0.0, 0.0]
        for _ in range(rounds):
            for kind, prefix in prefixes.items():
                before = records(proxy)
                rates[kind].append(sets(proxy, count, prefix, 256, 1, 2, 100_000))
                wait("the flush", lambda: proxy.queued() == 0, 0.05)
                if kind == "journal":
                    batches = [sum(pair) for pair in zip(batches, (now - then for now, then in zip(records(proxy), before)))]
    return {kind: statistics.median(values) for kind, values in rates.items()}, batches[0] / max(1, batches[1])


def records(proxy):
    return proxy.metric("dsproxy_journal_batch_records_sum"), proxy.metric("dsproxy_journal_batch_records_count")


def one_by_one(binary, servers, count):
    """p50 of a journaled SET at one connection and the mean sync during it, both in us."""
    with Proxy(binary, servers) as proxy:
        wait("the proxy", proxy.ready)
        with wire.Connection(proxy.port) as client:
            request, times = wire.encode("SET", "item:5", VALUE), []
            spent = lambda: (proxy.metric("dsproxy_journal_fsync_seconds_sum"), proxy.metric("dsproxy_journal_fsync_seconds_count"))
            before = spent()
            for _ in range(count):
                began = time.perf_counter_ns()
                client.sock.sendall(request)
                client.sock.recv(64)
                times.append(time.perf_counter_ns() - began)
            after = spent()
    return statistics.median(times) / 1000, (after[0] - before[0]) / (after[1] - before[1]) * 1e6


def outage(binary, servers, seconds, rate):
    """Postgres is away for `seconds` under `rate` writes per second: failed writes, waiting rows, drain, growth of memory."""
    with Proxy(binary, servers, ROOMY) as proxy:
        wait("the proxy", proxy.ready)
        stop, failed, done = threading.Event(), [], [0] * 4

        def write(at):
            with wire.Connection(proxy.port) as client:
                n = at
                while not stop.is_set():
                    began = time.monotonic()
                    batch = [("SET", f"item:{n + 4 * k}", VALUE) for k in range(25)]
                    n += 100
                    client.sock.sendall(b"".join(wire.encode(*command) for command in batch))
                    for _ in batch:
                        try:
                            client.read()
                            done[at] += 1
                        except wire.ReplyError as error:
                            failed.append(str(error))
                    time.sleep(max(0, began + 100 / rate - time.monotonic()))

        writers = [threading.Thread(target=write, args=(at,)) for at in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(1)
        servers.ask("kill postgres")
        before, most, end = rss_bytes(proxy.process.pid), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            most = max(most, rss_bytes(proxy.process.pid))
            time.sleep(0.2)
        waiting, taken = proxy.queued(), proxy.metric("dsproxy_write_behind_queue_bytes")
        servers.ask("start postgres")
        began = time.monotonic()
        time.sleep(1)
        stop.set()
        for writer in writers:
            writer.join()
        wait("the drain", lambda: proxy.queued() == 0, 0.05)
        took = time.monotonic() - began
    return {"failed": len(failed), "why": failed[:1], "written": sum(done), "waiting": waiting, "drained": took,
            "grown": (most - before) / 2**20, "accounted": taken / 2**20}


def measure(options, servers):
    """(title, figure, goal) of each row."""
    scale, binary = options.scale, options.binary
    small, large = int(150_000 * scale), int(1_000_000 * scale)
    if "batches" in options.only:
        rate, _ = drain(binary, servers, small, 50)
        yield "rows/s into Postgres, batches of 50", f"{rate:,.0f}", ">= 15,000"
    if "drain" in options.only:
        rate, took = drain(binary, servers, large, 1000)
        yield "rows/s into Postgres, adaptive (to 1,000)", f"{rate:,.0f}", ">= 60,000"
        yield f"backlog of {large:,} rows drained in", f"{took:.1f} s", "< 20 s for 1,000,000"
    if "restart" in options.only:
        took, waiting = restart(binary, servers, int(100_000 * scale) - 2)
        yield f"restart with {waiting:,} pending writes serves after", f"{took:.2f} s", "< 2 s for 100,000"
    if "acknowledged" in options.only:
        rates, batch = acknowledged(binary, servers, int(200_000 * scale), options.rounds)
        yield "SET/s at 256 connections, plain key", f"{rates['plain']:,.0f}", ""
        yield "SET/s at 256 connections, memory", f"{rates['memory']:,.0f}", f">= {0.85 * rates['plain']:,.0f} (plain - 15 %)"
        yield f"SET/s at 256 connections, journal ({batch:.0f} writes per sync)", f"{rates['journal']:,.0f}", ">= 50,000"
    if "one" in options.only:
        p50, sync = one_by_one(binary, servers, int(5000 * scale))
        yield "p50 of one SET, journal", f"{p50:.0f} us", f"<= {sync + 100:.0f} us (mean sync {sync:.0f} us + 100)"
    if "outage" in options.only:
        found = outage(binary, servers, options.outage, 10_000)
        title = f"Postgres away for {options.outage:.0f} s at 10,000 SET/s"
        yield f"{title}: failed of {found['written']:,}", f"{found['failed']} {''.join(found['why'])}", "0"
        yield f"... {found['waiting']:,} rows waited, drained in", f"{found['drained']:.1f} s", ""
        yield "... memory grew by", f"{found['grown']:.0f} MiB", f"{found['accounted']:.0f} MiB are accounted for"


def main():
    parts = ["batches", "drain", "restart", "acknowledged", "one", "outage"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE.parent / "target/release/dsproxy", help="the dsproxy to measure")
    parser.add_argument("--only", type=lambda text: text.split(","), default=parts, help=f"comma separated, of {','.join(parts)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes: 0.05 shows that it works")
    parser.add_argument("--rounds", type=int, default=3, help="of SETs at 256 connections; the median counts")
    parser.add_argument("--outage", type=float, default=60, help="seconds without Postgres")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"load average before: {pathlib.Path('/proc/loadavg').read_text().split()[:3]}", file=sys.stderr)
    servers = Servers(options.binary)
    try:
        for title, figure, goal in measure(options, servers):
            print(f"| {title} | {figure} | {goal} |", flush=True)
    except Failure as failure:
        print(f"writes: {failure}", file=sys.stderr)
        return 2
    finally:
        servers.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
