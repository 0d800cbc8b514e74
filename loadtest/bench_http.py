#!/usr/bin/env python3
"""Measures the HTTP side of the examples beside a bare hyper server, in interleaved rounds. See README.md in this folder."""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import urllib.request
from dataclasses import dataclass

import stack

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
READY_SECONDS = 60
# The line of hotcold-users: wrk -t4 -c128 --latency
BUSY = ("-t4", "-c128")
CALM = ("-t1", "-c1")


@dataclass
class Run:
    """One wrk run: requests per second, and its latencies in ms."""

    rate: float
    p50: float
    p99: float
    failed: int


@dataclass
class Scenario:
    """One URL under one load, and what it has to reach: at least a share of hello, so many requests/s, at most a p50 in ms."""

    name: str
    url: str
    load: tuple = BUSY
    share: float | None = None
    rate: float | None = None
    p50: float | None = None


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with stack.Stack() as servers:
            hello = start_hello(servers, options)
            rows = []
            for measure in (hotcold, facade, social):
                rows += measure(servers, options, hello)
            return publish(rows, options)
    except (stack.StackError, RuntimeError, OSError) as error:
        print(f"bench-http: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    release = ROOT / "target/release"
    parser.add_argument("--binary", type=pathlib.Path, default=release / "dsproxy", help="the dsproxy to measure")
    parser.add_argument("--hello", type=pathlib.Path, default=release / "examples/http_hello", help="the bare server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="length of one run (default 3)")
    parser.add_argument("--posts", type=int, default=2_000_000, help="posts of social-feed (default 2000000)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, not how fast is it")
    parser.add_argument("--gate", action="store_true", help="exit code 1 when a goal is missed")
    parser.add_argument("--append", action="store_true", help="add the table to loadtest/RESULTS.md")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds, options.posts = 1, 1, 20_000
    for program in (options.binary, options.hello):
        if not program.exists():
            parser.error(f"{program} is not there: `make bench-http` builds it")
    if not shutil.which("wrk"):
        parser.error("wrk is not there: scripts/setup.sh --bench installs it")
    return options


def hotcold(servers, options, hello):
    """The seed's own line, on a user that is cached; and what the server does without a cache."""
    port, _ = example(servers, options, "hotcold-users", "PORT")
    url = f"http://127.0.0.1:{port}"
    route = f"{url}/v1/users?user_id=someid"
    body = json.loads(get(route)) and json.loads(get(route))
    if body["message"] != "ok:redis":
        raise RuntimeError(f"not a hit: {body}")
    return rounds(options, hello, [
        Scenario("/ping", f"{url}/ping"),
        Scenario("hotcold-users: GET /v1/users, a hit", route, share=0.6, rate=4000 / 60),
        Scenario("hotcold-users: the same, one client", route, load=CALM),
    ])


def facade(servers, options, hello):
    """A value of the facade, a hit."""
    port, _ = example(servers, options, "dsproxy", "PROXY_PORT")
    url = f"http://127.0.0.1:{port}"
    body = json.dumps({"user_id": "user1", "value": "hello world"}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/write", body), timeout=10).read()
    get(f"{url}/read?user_id=user1")
    return rounds(options, hello, [Scenario("dsproxy: GET /read, a hit", f"{url}/read?user_id=user1")])


def social(servers, options, hello):
    """A page of 50 posts, a hit: one list and 50 objects. The generator's own line says how long the posts took."""
    port, environment = example(servers, options, "social-feed", "APP_PORT")
    config = ROOT / "examples/social-feed/proxy.toml"
    made = subprocess.run([options.binary, "datagen", "--config", config, "social", "--users", "100", "--posts",
                           str(options.posts), "--skew", "zipf:1.1"], env=environment, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stderr)
    print(f"social-feed: {made.stdout.strip()}", file=sys.stderr)
    page = f"http://127.0.0.1:{port}/api/v1/users/1/posts"
    if len(json.loads(get(page))["data"]) != 50 or len(json.loads(get(page))["data"]) != 50:
        raise RuntimeError("no page of 50")
    rows = rounds(options, hello, [
        Scenario("social-feed: a page of 50, one client", page, load=CALM, p50=1.5),
        Scenario("social-feed: a page of 50, 8 clients", page, load=("-t2", "-c8"), p50=1.5),
    ])
    return rows + [(Scenario(f"social-feed: datagen, {made.stdout.strip()}", ""), [], [])]


def example(servers, options, name, variable):
    """Starts an example with servers of its own, as its demo.sh does; its port, and the environment of its verbs."""
    port, resp, home = servers.free_port(), servers.free_port(), servers.dir / name
    home.mkdir()
    here = ROOT / "examples" / name
    environment = os.environ | {variable: str(port), "RESP_PORT": str(resp), "DSPROXY_DEV_DIRECTORY": str(home / "stack")}
    argv = [str(options.binary), "dev", "--config", str(here / "proxy.toml"), "--migrations", str(here / "migrations")]
    child = servers.spawn(name, ["env", f"{variable}={port}", f"RESP_PORT={resp}", f"DSPROXY_DEV_DIRECTORY={home / 'stack'}", *argv])
    stack.START_SECONDS = READY_SECONDS
    # The file of its addresses is written last.
    servers.wait_ready(child, name, lambda: get(f"http://127.0.0.1:{port}/health/ready") and (home / "stack/env").stat())
    lines = (line.partition("=") for line in (home / "stack/env").read_text().splitlines())
    values = {key: shlex.split(value)[0] for key, _, value in lines if value}
    return port, environment | values | {"DB_URL": values["DATABASE_URL"]}


def start_hello(servers, options):
    port = servers.free_port()
    child = servers.spawn("hello", [str(options.hello), str(port)])
    url = f"http://127.0.0.1:{port}/"
    servers.wait_ready(child, "hello", lambda: get(url) == b"hello")
    return url


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def rounds(options, hello, scenarios):
    """(scenario, its runs, the runs of hello under the same load in the same rounds) of each."""
    found = {scenario.name: (scenario, [], []) for scenario in scenarios}
    for number in range(options.rounds):
        bare = {load: wrk(hello, load, options) for load in {scenario.load for scenario in scenarios}}
        for scenario, runs, hellos in found.values():
            run = wrk(scenario.url, scenario.load, options)
            runs.append(run)
            hellos.append(bare[scenario.load])
            share = run.rate / bare[scenario.load].rate
            print(f"round {number + 1}  {scenario.name:42} {run.rate:9,.0f}/s  p50 {run.p50:.3f} ms  {share:.2f} of hello", file=sys.stderr)
    return list(found.values())


def wrk(url, load, options):
    done = subprocess.run(["wrk", *load, f"-d{options.seconds}s", "--latency", url], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout)
    unit = {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}
    percent = {int(q): float(n) * unit[u] for q, n, u in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)$", done.stdout, re.M)}
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", done.stdout))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
    return Run(rate, percent[50], percent[99], errors + (int(failed[1]) if failed else 0))


def publish(rows, options):
    lines, missed = ["| what | requests/s | p50 ms | p99 ms | failed | of hello | goals |", "| --- | ---: | ---: | ---: | ---: | ---: | --- |"], 0
    median = statistics.median
    for scenario, runs, hellos in rows:
        if not runs:
            lines.append(f"| {scenario.name} |  |  |  |  |  |  |")
            continue
        rate, p50, p99 = (median(getattr(run, field) for run in runs) for field in ("rate", "p50", "p99"))
        share, failed = median(run.rate / hello.rate for run, hello in zip(runs, hellos)), sum(run.failed for run in runs)
        goals = []
        for wanted, ok, text in ((scenario.share, share >= (scenario.share or 0), f">= {scenario.share} of hello"),
                                 (scenario.rate, rate >= (scenario.rate or 0), f">= {scenario.rate or 0:.0f}/s"),
                                 (scenario.p50, p50 <= (scenario.p50 or 0), f"p50 <= {scenario.p50} ms")):
            if wanted is not None:
                goals.append(f"{text}: {'ok' if ok else 'MISS'}")
                missed += not ok
        missed += failed > 0
        lines.append(f"| {scenario.name} | {rate:,.0f} | {p50:.3f} | {p99:.3f} | {failed} | {share:.2f} | {'; '.join(goals)} |")
    table = "\n".join(lines)
    when = subprocess.run(["date", "-u", "+%Y-%m-%d %H:%M UTC"], capture_output=True, text=True).stdout.strip()
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    page = (f"# Results of `make bench-http`\n\n- date: {when}\n- machine: {os.cpu_count()} cores; load average at the end {loads}\n"
            f"- command: `{shlex.join(['loadtest/bench_http.py', *sys.argv[1:]])}`; medians of {options.rounds} interleaved rounds\n\n{table}\n")
    print(page)
    if options.append:
        with open(HERE / "RESULTS.md", "a") as results:
            results.write("\n" + page)
    return 1 if missed and options.gate else 0


if __name__ == "__main__":
    sys.exit(main())
