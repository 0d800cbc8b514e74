#!/usr/bin/env python3
"""Compares dsproxy with its peers in interleaved rounds. See README.md in this folder."""

import argparse
import dataclasses
import json
import pathlib
import resource
import shlex
import signal
import sys
from collections import defaultdict

import load
import report
import stack

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = ["direct", "plain", "haproxy", "nutcracker", "dsproxy", "dsproxy-2w", "dsproxy-busy"]
PROXIES = {"dsproxy", "dsproxy-2w", "dsproxy-busy"}
SCENARIOS = [*load.SCENARIOS, load.LATENCY]
IDLE_CLIENTS = 10_000
PROBE_REQUESTS_PER_SECOND = 3_000  # of the c=1 probe, for each second of --seconds
QUICK_SECONDS = 0.4
BUSY_POLL = "100us"


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_file_limit()
    try:
        with stack.Stack() as servers:
            targets = start(servers, options)
            for target in targets:
                say(f"preload {target.name}")
                load.preload(target)
            results = measure(targets, options)
            memory = measure_memory(targets, options)
            return publish(targets, results, memory, options)
    except (stack.StackError, RuntimeError, OSError) as error:
        say(f"bench: {error}")
        return 2
    except KeyboardInterrupt:
        say("bench: stopped")
        return 130


def parse(argv):
    names = [s.name for s in SCENARIOS] + ["memory"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=HERE.parent / "target/release/dsproxy", help="the dsproxy to measure")
    parser.add_argument("--targets", type=listed(TARGETS), default=TARGETS, help=f"comma separated, of {','.join(TARGETS)}")
    parser.add_argument("--scenarios", type=listed(names), default=names, help=f"comma separated, of {','.join(names)}")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one run; its requests follow from a warm-up (default 1.5)")
    parser.add_argument("--requests", type=positive, help="commands of every run, instead of --seconds")
    parser.add_argument("--generators", type=positive, default=1, help="load generators per run: processes, or threads for direct (default 1)")
    parser.add_argument("--idle-clients", type=positive, default=IDLE_CLIENTS, help="connections of the memory scenario")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, not how fast is it")
    parser.add_argument("--gate", action="store_true", help="exit code 1 when a goal is missed")
    parser.add_argument("--write", action="store_true", help="write the table to loadtest/RESULTS.md")
    parser.add_argument("--append", action="store_true", help="add the table to loadtest/RESULTS.md")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample to FILE")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS
    return options


def listed(allowed):
    def names(text):
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(allowed)}")
        return chosen
    return names


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def raise_file_limit():
    """The memory scenario holds 10,000 sockets here, children inherit the limit for theirs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start(servers, options):
    """Start what the chosen targets need, in the order in which rounds visit them."""
    wanted = set(options.targets)
    if wanted & PROXIES and not options.binary.exists():
        raise stack.StackError(f"{options.binary} is not there: `cargo build --release`, or leave dsproxy out with --targets")
    cluster = servers.cluster() if wanted & {"direct", *PROXIES} else []
    plain = [servers.redis(f"plain-{n}")[0] for n in range(3)] if wanted & {"plain", "haproxy", "nutcracker"} else []
    make = {
        "direct": lambda: stack.Target("direct", cluster[0], cluster, "direct", routes_itself=False),
        "plain": lambda: stack.Target("plain", plain[0], plain[:1], "plain"),
        "haproxy": lambda: servers.haproxy(plain[0]),
        "nutcracker": lambda: servers.nutcracker(plain),
        "dsproxy": lambda: servers.dsproxy("dsproxy", options.binary, 1, cluster),
        "dsproxy-2w": lambda: servers.dsproxy("dsproxy-2w", options.binary, 2, cluster),
        "dsproxy-busy": lambda: servers.dsproxy("dsproxy-busy", options.binary, 1, cluster, busy_poll=BUSY_POLL),
    }
    return [make[name]() for name in TARGETS if name in wanted]


def measure(targets, options):
    """results[scenario][target] = [Sample per round], visited round by round so that noise hits all alike."""
    chosen = [scenario for scenario in load.SCENARIOS if scenario.name in options.scenarios]
    requests = {(s.name, t.name): size_of_run(t, s, options) for s in chosen for t in targets}
    results = defaultdict(lambda: defaultdict(list))
    for number in range(options.rounds):
        for scenario in chosen:
            for target in targets:
                sample = load.run(target, scenario, requests[scenario.name, target.name], options.generators)
                results[scenario.name][target.name].append(sample)
                cpu = "" if sample.cpu is None else f" {sample.cpu:.2f} us CPU"
                say(f"round {number + 1}/{options.rounds}  {scenario.title:22} {target.name:11} {sample.ops:10,.0f}/s{cpu}")
        if load.LATENCY.name in options.scenarios:
            probes = options.requests or int(PROBE_REQUESTS_PER_SECOND * options.seconds)
            for name, sample in load.probe_latency(targets, probes).items():
                results[load.LATENCY.name][name].append(sample)
    return results


def size_of_run(target, scenario, options):
    """As many commands as fill --seconds on this target: too short a run measures how its generators start up."""
    if options.requests:
        return options.requests
    say(f"warm up  {scenario.title:22} {target.name}")
    return max(1000, int(load.run(target, scenario, scenario.warmup, options.generators).ops * options.seconds))


def measure_memory(targets, options):
    """Bytes per idle client. Not for HAProxy, which holds two sockets per client: more than the file limit allows."""
    if "memory" not in options.scenarios:
        return {}
    chosen = [t for t in targets if t.name in ("nutcracker", "dsproxy")]
    return {target.name: load.idle_memory(target, options.idle_clients) for target in chosen}


def publish(targets, results, memory, options):
    markdown, missed = report.table(results, memory, SCENARIOS, targets)
    versions = [stack.first_line("redis-server", "--version")]
    heading = report.heading(targets, shlex.join(["loadtest/bench.py", *sys.argv[1:]]), versions, options.rounds)
    page = f"# Results of `make bench`\n\n{heading}\n\n{markdown}\n\nHow to read it: [README.md](README.md).\n"
    print(page)
    if options.write or options.append:
        with open(HERE / "RESULTS.md", "a" if options.append else "w") as results:
            results.write("\n" + page if options.append else page)
    if options.json:
        samples = {s: {t: [dataclasses.asdict(x) for x in xs] for t, xs in by.items()} for s, by in results.items()}
        options.json.write_text(json.dumps({"heading": heading, "samples": samples, "memory": memory}, indent=1))
    if missed:
        say(f"bench: {missed} goals missed")
    return 1 if missed and options.gate else 0


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
