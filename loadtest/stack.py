"""Starts and stops the servers and proxies of a benchmark; knows nothing of what is measured on them.

Every child dies with this process, also after kill -9 (PR_SET_PDEATHSIG); only own children are ever signalled.
"""

import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

import wire
from children import die_with_parent

HERE = pathlib.Path(__file__).resolve().parent
SLOTS = 16384
START_SECONDS = 20


class StackError(Exception):
    """A child could not be started; the message names the cause and the cure."""


@dataclass
class Target:
    """One road from the load generator to data."""

    name: str
    port: int
    backends: list          # ports of the redis-servers behind it
    baseline: str           # the target whose throughput and latency this one is divided by
    pid: int | None = None  # None: no proxy in between
    routes_itself: bool = True  # False: the load generator must know which backend holds which key
    version: str = ""


class Stack:
    """Owner of the temp directory and of all child processes; use as a context manager."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dsproxy-bench-"))
        self.children = []
        self.ports = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            if child.poll() is None:
                child.kill()
        for child in self.children:
            child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def free_port(self):
        """A port that is free now, and whose +10000 (the cluster bus) is too; below the ephemeral range."""
        for _ in range(1000):
            port = random.randint(12000, 22000)
            if port not in self.ports and bindable(port) and bindable(port + 10000):
                self.ports.update((port, port + 10000))
                return port
        raise StackError("no free port between 12000 and 22000 on 127.0.0.1")

    def spawn(self, name, argv):
        log = open(self.dir / f"{name}.log", "wb")
        try:
            child = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir, preexec_fn=die_with_parent)
        except FileNotFoundError as error:
            raise StackError(f"{argv[0]} is not there; install or build it (make bench does)") from error
        finally:
            log.close()
        self.children.append(child)
        return child

    def wait_ready(self, child, name, ready):
        """Wait until `ready()` is true; it may raise socket, protocol or reply errors meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        last = "no answer"
        while time.monotonic() < deadline:
            if child.poll() is not None:
                last = f"exit code {child.returncode}"
                break
            try:
                if ready():
                    return
            except (OSError, wire.ReplyError) as error:
                last = str(error)
            time.sleep(0.02)
        tail = (self.dir / f"{name}.log").read_text(errors="replace")[-1500:]
        raise StackError(f"{name} did not become ready: {last}\n{tail}")

    def redis(self, name, cluster=False):
        port = self.free_port()
        home = self.dir / f"{name}-data"
        home.mkdir()
        argv = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "no",
                "--maxclients", 15000, "--tcp-backlog", 1024, "--cluster-enabled", "yes" if cluster else "no"]
        child = self.spawn(name, [str(arg) for arg in argv])
        self.wait_ready(child, name, lambda: answers_ping(port))
        return port, child

    def cluster(self, size=3):
        """A cluster of `size` primaries without replicas; returns their ports."""
        nodes = [self.redis(f"cluster-{n}", cluster=True) for n in range(size)]
        ports = [port for port, _ in nodes]
        for index, port in enumerate(ports):
            with wire.Connection(port) as node:
                node.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                node.call("CLUSTER", "ADDSLOTSRANGE", index * SLOTS // size, (index + 1) * SLOTS // size - 1)
                if index:
                    node.call("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for index, (port, child) in enumerate(nodes):
            self.wait_ready(child, f"cluster-{index}", lambda port=port: knows_all(port, size))
        return ports

    def haproxy(self, server):
        port = self.free_port()
        path = self.render("haproxy.cfg", LISTEN=f"127.0.0.1:{port}", SERVER=f"127.0.0.1:{server}")
        child = self.spawn("haproxy", ["haproxy", "-db", "-f", str(path)])
        self.wait_ready(child, "haproxy", lambda: answers_ping(port))
        return Target("haproxy", port, [server], "plain", child.pid, version=first_line("haproxy", "-v"))

    def nutcracker(self, servers):
        port = self.free_port()
        lines = "\n".join(f"   - 127.0.0.1:{server}:1 plain{n}" for n, server in enumerate(servers))
        path = self.render("nutcracker.yml", LISTEN=f"127.0.0.1:{port}", SERVERS=lines)
        child = self.spawn("nutcracker", ["nutcracker", "-c", str(path), "-a", "127.0.0.1", "-s", str(self.free_port()), "-m", "16384"])
        self.wait_ready(child, "nutcracker", lambda: answers_ping(port))
        return Target("nutcracker", port, servers, "direct", child.pid, version=first_line("nutcracker", "-V"))

    def dsproxy(self, name, binary, workers, nodes, busy_poll="0"):
        port, http = self.free_port(), self.free_port()
        quoted = ", ".join(f'"127.0.0.1:{node}"' for node in nodes)
        path = self.render("dsproxy.toml", name=f"{name}.toml", LISTEN=f"127.0.0.1:{port}", HTTP=f"127.0.0.1:{http}",
                           WORKERS=str(workers), BUSY_POLL=busy_poll, NODES=quoted)
        child = self.spawn(name, [str(binary), "serve", "--config", str(path)])
        # A key of every shard, not PING, which the proxy answers without a cluster.
        self.wait_ready(child, name, lambda: all(answers_get(port, f"ready:{n}") for n in range(20)))
        return Target(name, port, nodes, "direct", child.pid, version=first_line(str(binary), "--version"))

    def render(self, template, name=None, **values):
        text = (HERE / "peers" / template).read_text()
        for key, value in values.items():
            text = "\n".join(line if line.lstrip().startswith("#") else line.replace(f"@{key}@", value) for line in text.split("\n"))
        path = self.dir / (name or template)
        path.write_text(text)
        return path


def bindable(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def answers_ping(port):
    with wire.Connection(port, timeout=2) as connection:
        return connection.call("PING") == "PONG"


def answers_get(port, key):
    with wire.Connection(port, timeout=2) as connection:
        return connection.call("GET", key) is None


def knows_all(port, size):
    with wire.Connection(port) as node:
        state = node.call("CLUSTER", "INFO").decode()
        ranges = node.call("CLUSTER", "SLOTS")
    return "cluster_state:ok" in state and len(ranges) == size and f"cluster_known_nodes:{size}" in state


def first_line(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].removeprefix("This is ") if lines else argv[0]
