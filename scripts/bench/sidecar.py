#!/usr/bin/env python3
"""Measures what sidecar.sh says. Run sidecar.sh."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

OBJECT_BYTES = 4096
CONNECTIONS = 16
UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
# What the sidecar that Kelp replaces printed about itself, with invented bytes.
OLD_OPS_PER_S, OLD_MS = 403, 2.48


@dataclass(frozen=True)
class Slice:
    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float  # of the server, per request


def wrk(url: str, pid: int, seconds: int, connections: int) -> Slice:
    before = process.cpu_s(pid)
    said = load.output_of(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url])
    cpu = process.cpu_s(pid) - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise process.LabError(f"wrk on {url} had errors:\n{said}")
    requests = re.search(r"(\d+) requests in", said)
    per_s = re.search(r"Requests/sec:\s+([\d.]+)", said)
    parts = {share: re.search(rf"\b{share}%\s+([\d.]+)(us|ms|s)\b", said) for share in (50, 99)}
    if not requests or not per_s or not all(parts.values()):
        raise process.LabError(f"wrk said something else:\n{said}")
    times = {share: float(found[1]) * UNITS_US[found[2]] for share, found in parts.items() if found}
    return Slice(float(per_s[1]), times[50], times[99], cpu / int(requests[1]) * 1e6)


def compare(kelp: list[Slice], http: list[Slice], what: str, musts: bool) -> list[figures.Figure]:
    def ratios(name: str) -> list[float]:
        return [getattr(ours, name) / getattr(theirs, name) for ours, theirs in zip(kelp, http)]

    def must(value: float) -> float | None:
        return value if musts else None

    made = [figures.of_samples(f"{who}, {what}: {name}", [getattr(one, field) for one in slices], better, unit)
            for who, slices in (("Kelp", kelp), ("weed", http))
            for name, field, better, unit in (("requests", "per_s", "high", "/s"), ("p50", "p50_us", "low", "us"),
                                              ("p99", "p99_us", "low", "us"), ("CPU a request", "cpu_us", "low", "us"))]
    return [*made, figures.of_samples(f"requests/s, Kelp / weed, {what}", ratios("per_s"), "high", "x", must(1.5)),
            figures.of_samples(f"p99, Kelp / weed, {what}", ratios("p99_us"), "low", "x", must(0.7)),
            figures.of_samples(f"CPU a request, Kelp / weed, {what}", ratios("cpu_us"), "low", "x", must(1.0))]


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    binary = weed.install(weed.DEFAULT_VERSION, say)
    pairs, seconds = (2, 1) if args.quick else (15, 2)
    port = process.free_ports(1)[0]
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        fid = cluster.assign(1)[0]
        cluster.put(fid, random.randbytes(OBJECT_BYTES))
        with daemon.Daemon(args.programs, home / "kelpd", None, volume_servers={cluster.server: [cluster.volume_dir]},
                           flags=["--sidecar", f"127.0.0.1:{port}"]) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            ours = f"http://127.0.0.1:{port}/read?file_id={fid}&offset=0&size={OBJECT_BYTES}"
            theirs = f"http://{cluster.server}/{fid}"
            measured = []
            for connections, musts in ((CONNECTIONS, True), (1, False)):
                say(f"wrk with {connections} connections on kelpd and on weed in turns: {pairs} pairs of slices of {seconds} s")
                kelp, http = [], []
                for _ in range(pairs):
                    kelp.append(wrk(ours, kelpd.child.pid, seconds, connections))
                    http.append(wrk(theirs, cluster.server_pid, seconds, connections))
                measured += compare(kelp, http, f"{connections} connections", musts)
            say("the same read by a program, through the ring")
            rounds = []
            for _ in range(pairs):
                done = kelpd.kelpctl("--json", "bench", fid, "--count", "20000")
                if done.returncode != 0:
                    raise process.LabError(f"kelpctl bench: {done.stderr.decode()}")
                rounds.append(json.loads(done.stdout))
    return [*measured,
            figures.of_samples("through the ring, one at a time: reads", [one["ops_per_sec"] for one in rounds], "high", "/s"),
            figures.of_samples("through the ring, one at a time: p50", [one["latency_us"]["p50"] for one in rounds], "low", "us"),
            figures.of_samples("the old sidecar, as it said itself: reads", [OLD_OPS_PER_S], "high", "/s"),
            figures.of_samples("the old sidecar, as it said itself: latency", [OLD_MS * 1000], "low", "us")]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
