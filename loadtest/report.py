"""Turns samples into the table and the verdicts; knows nothing of servers or processes.

`results[scenario][target]` is a list of load.Sample, one per round.
"""

import datetime
import os
import pathlib
import platform
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure that one target has to reach in one scenario."""

    scenario: str
    target: str
    figure: str   # cpu (us per command), cpu_ratio (to nutcracker), ops_ratio (to direct), added_p50 (us), memory (bytes)
    limit: float
    at_least: bool = False

    def met(self, value):
        return value >= self.limit if self.at_least else value <= self.limit


def cpu_goals(scenario, cpu, ratio):
    return [Goal(scenario, "dsproxy", "cpu", cpu), Goal(scenario, "dsproxy", "cpu_ratio", ratio)]


GOALS = [
    *cpu_goals("get", 7.5, 0.67),
    *cpu_goals("get16", 1.0, 0.25),
    *cpu_goals("set", 8.0, 0.70),
    *cpu_goals("get500", 5.8, 0.57),
    *cpu_goals("mget", 11.5, 0.60),
    *cpu_goals("get10k", 13.0, 0.69),
    Goal("get", "dsproxy-2w", "ops_ratio", 0.80, at_least=True),
    Goal("get16", "dsproxy-2w", "ops_ratio", 0.60, at_least=True),
    Goal("latency", "dsproxy", "added_p50", 15.0),
    Goal("memory", "dsproxy", "memory", 6 * 1024.0),
]
FIGURE_NAMES = {"cpu": "CPU us", "cpu_ratio": "x nutcracker", "ops_ratio": "x direct", "added_p50": "added p50 us",
                "memory": "bytes/client"}
# A read that misses is another job than a hit: more than this share means the preload did not fit the scenario.
MISS_LIMIT = 0.01


def figures(results, scenario, target, baseline):
    """Medians over the rounds; ratios are medians of the ratios within each round."""
    samples = results[scenario][target]
    direct = results[scenario].get(baseline)
    nutcracker = results[scenario].get("nutcracker")
    has_cpu = samples[0].cpu is not None
    found = {
        "ops": median(s.ops for s in samples),
        "p50": median(s.p50 for s in samples),
        "p99": median(s.p99 for s in samples),
        "misses": max(s.misses for s in samples),
    }
    if has_cpu:
        found["cpu"] = median(s.cpu for s in samples)
        found["cpu_low"], found["cpu_high"] = min(s.cpu for s in samples), max(s.cpu for s in samples)
    if direct and baseline != target:
        found["ops_ratio"] = median(s.ops / d.ops for s, d in zip(samples, direct))
        found["added_p50"] = median((s.p50 - d.p50) * 1000 for s, d in zip(samples, direct))
    if has_cpu and nutcracker:
        found["cpu_ratio"] = median(s.cpu / n.cpu for s, n in zip(samples, nutcracker))
    return found


def median(values):
    return statistics.median(list(values))


def verdicts(scenario, target, found):
    """[(text, met)] of the goals of one row whose figure was measured."""
    return [
        (f"{FIGURE_NAMES[g.figure]} {'>=' if g.at_least else '<='} {g.limit:g}: {'ok' if g.met(found[g.figure]) else 'MISS'}",
         g.met(found[g.figure]))
        for g in GOALS if g.scenario == scenario and g.target == target and g.figure in found
    ]


def table(results, memory, scenarios, targets):
    """(markdown, misses): the table, and how many goals were missed."""
    lines = ["| scenario | target | ops/s | p50 ms | p99 ms | CPU us/command (spread) | ops/s x direct | added p50 us "
             "| CPU x nutcracker | goals |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    missed = 0
    for scenario in scenarios:
        for target in targets:
            if target.name not in results.get(scenario.name, {}):
                continue
            found = figures(results, scenario.name, target.name, target.baseline)
            judged = verdicts(scenario.name, target.name, found)
            missed += sum(not met for _, met in judged)
            lines.append(row(scenario.title, target.name, found, judged))
    for name, per_client in memory.items():
        judged = verdicts("memory", name, {"memory": per_client})
        missed += sum(not met for _, met in judged)
        text = "; ".join([f"{per_client:.0f} bytes per idle client", *(text for text, _ in judged)])
        lines.append(f"| memory | {name} |  |  |  |  |  |  |  | {text} |")
    return "\n".join(lines), missed


def row(title, name, found, judged):
    cpu = f"{found['cpu']:.2f} ({found['cpu_low']:.2f}..{found['cpu_high']:.2f})" if "cpu" in found else ""
    notes = [text for text, _ in judged]
    if found["misses"] > MISS_LIMIT:
        notes.append(f"WARNING: {found['misses']:.1%} of the reads were misses")
    cells = [title, name, f"{found['ops']:,.0f}", f"{found['p50']:.3f}", f"{found['p99']:.3f}", cpu,
             shown(found, "ops_ratio", ".2f"), shown(found, "added_p50", "+.0f"), shown(found, "cpu_ratio", ".2f"), "; ".join(notes)]
    return "| " + " | ".join(cells) + " |"


def shown(found, figure, form):
    return format(found[figure], form) if figure in found else ""


def heading(targets, command_line, versions, rounds):
    """Where, when and how: what a reader needs to judge the table or to repeat it."""
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    versions = dict.fromkeys([*(t.version for t in targets if t.version), *versions])
    return "\n".join([
        f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"- machine: {os.cpu_count()} cores, {model}, Linux {platform.release()}; load average at the end {load}",
        f"- versions: {'; '.join(versions)}",
        f"- command: `{command_line}`; medians of {rounds} interleaved rounds",
    ])
