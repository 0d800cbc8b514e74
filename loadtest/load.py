"""Puts load on one target and measures it; knows nothing of how targets are started or judged."""

import csv
import pathlib
import statistics
import subprocess
import time
from dataclasses import dataclass

import wire
from children import die_with_parent

SMALL_KEYS = 100_000
BIG_KEYS = 2_000
BIG_BYTES = 10 * 1024
MGET_KEYS = 10
SET_BYTES = 32
GENERATOR_TIMEOUT = 120  # seconds
PROBE_BLOCK = 500        # requests of the c=1 probe before the next target has its turn


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    clients: int
    depth: int          # commands in flight per client
    warmup: int         # commands of the run that finds the rate
    command: tuple = ()
    keys: int = SMALL_KEYS
    reads: int = 1      # keys looked up per command; 0 for a write


@dataclass
class Sample:
    """One scenario on one target in one round."""

    ops: float                    # commands per second, as the clients see it
    p50: float                    # ms
    p99: float                    # ms
    cpu: float | None             # us of the proxy process per command, all its threads, user + system
    misses: float = 0.0           # share of looked-up keys that were not there


def key(tag, number="__rand_int__"):
    """A key's name. `tag` pins it to a node where the load generator must route; empty where the target does."""
    return f"key:{tag}{number}"


def big_key(tag, number="__rand_int__"):
    return f"big:{tag}{number}"


# redis-benchmark replaces every __rand_int__ by 12 digits below -r.
SCENARIOS = [
    Scenario("get", "GET c=50 P=1", 50, 1, 20_000, ("GET", key)),
    Scenario("get16", "GET c=50 P=16", 50, 16, 200_000, ("GET", key)),
    Scenario("set", "SET c=50 P=1", 50, 1, 20_000, ("SET", key, "v" * SET_BYTES), reads=0),
    Scenario("get500", "GET c=500 P=1", 500, 1, 20_000, ("GET", key)),
    Scenario("mget", "MGET of 10 keys c=50", 50, 1, 10_000, ("MGET",) + (key,) * MGET_KEYS, reads=MGET_KEYS),
    Scenario("get10k", "GET of 10 KiB c=50", 50, 1, 10_000, ("GET", big_key), keys=BIG_KEYS),
]
LATENCY = Scenario("latency", "GET c=1 P=1", 1, 1, PROBE_BLOCK, ("GET", key))
PROBE_KEY = "probe"


def preload(target):
    """Write every key the scenarios ask for, through the target itself, so that every read is a hit."""
    for port, tag in roads(target):
        with wire.Connection(port) as connection:
            wire.pipeline(connection, (("SET", key(tag, f"{n:012}"), "v" * (3 + n * 37 % 62)) for n in range(SMALL_KEYS)))
            big = b"b" * BIG_BYTES
            wire.pipeline(connection, (("SET", big_key(tag, f"{n:012}"), big) for n in range(BIG_KEYS)), window=20)


def roads(target):
    """(port, key tag) pairs to write keys through: the target's own port, or each node with the tag its load will carry."""
    if target.routes_itself:
        return [(target.port, "")]
    return [(port, generator_tag(target, port)) for port in target.backends]


def generator_tag(target, port):
    """What `redis-benchmark --cluster` puts for {tag} in keys for the node at `port`; learned by watching it."""
    probe = ["redis-benchmark", "--cluster", "--threads", "1", "-p", str(target.port), "-n", "300", "-r", "10"]
    subprocess.run([*probe, "SET", "tag-probe:{tag}:__rand_int__", "1"], check=True, capture_output=True, timeout=GENERATOR_TIMEOUT)
    with wire.Connection(port) as node:
        found = node.call("KEYS", "tag-probe:*")
    return found[0].decode().removeprefix("tag-probe:")[:-12]


def run(target, scenario, requests, generators):
    """One bounded run of redis-benchmark against `target`.

    A target that routes gets `generators` single-threaded processes; the cluster itself gets one process with as many threads.
    """
    if not target.routes_itself:
        generators, threads, tag = 1, generators, "{tag}:"
    else:
        generators, threads, tag = min(generators, scenario.clients), None, ""
    share = requests // generators
    seen, spent = lookups(target), cpu_ns(target.pid)
    started = [
        subprocess.Popen(arguments(target.port, tag, scenario, share, clients, threads),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        for clients in parts(scenario.clients, generators)
    ]
    try:
        served = served_rate(target, started[0], share) if threads else None
        results = [finish(process, target, scenario) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    spent = cpu_ns(target.pid) - spent if target.pid else None
    total = share * generators
    return Sample(
        ops=served or total / max(share / float(row["rps"]) for row in results),
        p50=statistics.mean(float(row["p50_latency_ms"]) for row in results),
        p99=max(float(row["p99_latency_ms"]) for row in results),
        cpu=None if spent is None else spent / 1000 / total,
        misses=miss_share(seen, lookups(target)) if scenario.reads else 0.0,
    )


def served_rate(target, process, requests):
    """Commands per second as the servers count them, over the middle of the run; None if it was too short to tell.

    redis-benchmark 7.0 with threads (which --cluster implies) stops its clock on a 250 ms tick: up to 20 % off in a short run.
    """
    connections = [wire.Connection(port) for port in target.backends]
    try:
        base, samples = served(connections), []
        while process.poll() is None:
            own = len(connections) * (len(samples) + 1)  # our INFO calls count too
            samples.append((time.monotonic(), served(connections) - base - own))
            time.sleep(0.02)
    finally:
        for connection in connections:
            connection.close()
    middle = [(when, count) for when, count in samples if 0.05 * requests <= count <= 0.95 * requests]
    if len(middle) < 5:
        return None
    (start, first), (end, last) = middle[0], middle[-1]
    return (last - first) / (end - start)


def served(connections):
    return sum(int(wire.info(connection, "stats")["total_commands_processed"]) for connection in connections)


def arguments(port, tag, scenario, requests, clients, threads):
    command = [part(tag) if callable(part) else part for part in scenario.command]
    options = ["-p", port, "-c", clients, "-P", scenario.depth, "-n", requests, "-r", scenario.keys, "--csv"]
    options += ["--cluster", "--threads", threads] if threads else []
    return ["redis-benchmark", *map(str, options), *command]


def parts(whole, count):
    return [whole // count + (n < whole % count) for n in range(count)]


def finish(process, target, scenario):
    out, err = process.communicate(timeout=GENERATOR_TIMEOUT)
    lines = [line for line in out.splitlines() if line.startswith('"')]
    if process.returncode or len(lines) < 2:
        raise RuntimeError(f"redis-benchmark failed on {target.name}, {scenario.title}: {(out + err).strip()[-400:]}")
    return next(csv.DictReader(lines))


def probe_latency(targets, requests):
    """c=1 latency of each target, in turns of a few hundred requests so that all see the same noise.

    Our own probe: redis-benchmark rounds percentiles to 8 us, half of what is to be seen; what Python adds is the same for all.
    One key for everyone, so that direct and proxied requests end at one server and the difference is the proxy's.
    """
    connections = {target.name: wire.Connection(port_of_key(target, PROBE_KEY)) for target in targets}
    times = {target.name: [] for target in targets}
    spent = {target.name: 0 for target in targets}
    try:
        for connection in connections.values():
            connection.call("SET", PROBE_KEY, "v" * SET_BYTES)
        for _ in range(max(1, requests // PROBE_BLOCK)):
            for target in targets:
                before = cpu_ns(target.pid)
                times[target.name] += probe_block(target, connections[target.name].sock)
                spent[target.name] += cpu_ns(target.pid) - before
    finally:
        for connection in connections.values():
            connection.close()
    return {target.name: latency_sample(target, times[target.name], spent[target.name]) for target in targets}


def probe_block(target, sock):
    request, expected = wire.encode("GET", PROBE_KEY), b"$%d\r\n%s\r\n" % (SET_BYTES, b"v" * SET_BYTES)
    times = []
    for _ in range(PROBE_BLOCK):
        start = time.perf_counter_ns()
        sock.sendall(request)
        reply = sock.recv(4096)
        times.append(time.perf_counter_ns() - start)
        if reply != expected:
            raise RuntimeError(f"{target.name} answered {reply[:60]!r} to {request!r}")
    return times


def port_of_key(target, name):
    """Where a client sends a command on `name`: the target, or the node that owns the key's slot."""
    if target.routes_itself:
        return target.port
    with wire.Connection(target.port) as node:
        slots = node.call("CLUSTER", "SLOTS")
    return next(primary[1] for first, last, primary, *_ in slots if first <= wire.slot_of(name) <= last)


def latency_sample(target, times, spent):
    cuts = statistics.quantiles(times, n=100)
    return Sample(ops=1e9 / statistics.mean(times), p50=cuts[49] / 1e6, p99=cuts[98] / 1e6,
                  cpu=spent / 1000 / len(times) if target.pid else None)


def lookups(target):
    """(hits, misses) of all servers behind the target so far."""
    stats = []
    for port in target.backends:
        with wire.Connection(port) as connection:
            stats.append(wire.info(connection, "stats"))
    return sum(int(s["keyspace_hits"]) for s in stats), sum(int(s["keyspace_misses"]) for s in stats)


def miss_share(before, after):
    hits, misses = after[0] - before[0], after[1] - before[1]
    return misses / max(1, hits + misses)


def cpu_ns(pid):
    """CPU time of all live threads of a process, in ns (schedstat's first field; stat's ticks are 10 ms each)."""
    if pid is None:
        return 0
    total = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile
    return total


def rss_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} is gone")


def idle_memory(target, clients):
    """Resident bytes per idle client that has done one GET, once the proxy has had the time to give buffers back."""
    with wire.Connection(target.port) as warm:
        wire.pipeline(warm, (("GET", key("", f"{n:012}")) for n in range(1000)))
    before = settled_rss(target.pid)
    request = wire.encode("GET", key("", f"{1:012}"))
    held = []
    try:
        for _ in range(clients):
            connection = wire.Connection(target.port)
            held.append(connection)
            connection.sock.sendall(request)
            if connection.read() is None:
                raise RuntimeError(f"{target.name} lost a key while idle clients connected")
        return (settled_rss(target.pid) - before) / clients
    finally:
        for connection in held:
            connection.close()


def settled_rss(pid, quiet=2.0, limit=20.0):
    """Resident size once it has not moved for `quiet` seconds; `limit` ends the wait of one that never rests."""
    deadline = time.monotonic() + limit
    last, since = rss_bytes(pid), time.monotonic()
    while time.monotonic() < min(deadline, since + quiet):
        time.sleep(0.1)
        now = rss_bytes(pid)
        if now != last:
            last, since = now, time.monotonic()
    return last
