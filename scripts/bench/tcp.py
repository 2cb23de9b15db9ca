#!/usr/bin/env python3
"""Measures what tcp.sh says. Run tcp.sh."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

SMALL, SMALL_BYTES = 64, 4096
LARGE, LARGE_BYTES = 8, 1 << 20
DEEP, LARGE_DEPTH = 32, 4


@dataclass(frozen=True)
class Lab:
    """A weed, the kelpd beside it, and one that asks that, each worker on a CPU of its own."""

    programs: Path
    home: Path
    cluster: weed.Cluster
    target: daemon.Daemon
    gateway: daemon.Daemon
    how: str  # it is configured, for people
    cpus: tuple[int, int]  # of the gateway's worker and the target's
    small: Path
    large: Path
    slice_s: float

    def loadgen(self, *options: object) -> subprocess.CompletedProcess[bytes]:
        return self.gateway.kelpctl("--json", "loadgen", *map(str, options))

    def generate(self, fids: Path, size: int, depth: int) -> dict[str, Any]:
        done = self.loadgen("--fids", fids, "--size", size, "--depth", depth, "--duration", self.slice_s)
        if done.returncode != 0:
            raise process.LabError(f"kelpctl loadgen ended with exit code {done.returncode}: {done.stderr!r}")
        result = json.loads(done.stdout)
        # Now and then where a volume is gets asked anew, over HTTP.
        if result["paths"].get("tcp", 0) < 0.99 * result["requests"] - depth:
            raise process.LabError(f"reads did not come over TCP: {result['paths']}")
        return result

    def bare(self, *words: object) -> dict[str, Any]:
        return json.loads(load.output_of([self.programs / "kelp-tcp-bare", *words, "--cpus", ",".join(map(str, self.cpus)),
                                          "--seconds", self.slice_s]))

    def program(self, *options: object) -> dict[str, Any]:
        """kelp-bench through the gateway and over HTTP in turns. Where it runs is the scheduler's choice."""
        bench = load.Bench(self.programs, self.gateway.run_dir, self.small, (), self.cluster.server, self.cluster.server_pid)
        return bench.run("--sleep", "--against-http", self.cluster.server, *options)


@contextlib.contextmanager
def lab(args: argparse.Namespace, say: process.Progress, *, cache: bool = True) -> Iterator[Lab]:
    """Without `cache` the target reads the volume each time."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for each worker")
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        listings = []
        for count, size in ((SMALL, SMALL_BYTES), (LARGE, LARGE_BYTES)):
            fids = cluster.assign(count)
            for fid in fids:
                cluster.put(fid, random.randbytes(size))
            listings.append(home / f"fids-{size}")
            listings[-1].write_text("\n".join(fids) + "\n")
        address = f"127.0.0.1:{process.free_ports(1)[0]}"
        flags = daemon.peer_flags(home / "target.toml", listen=address)
        if not cache:
            with (home / "target.toml").open("a") as config:
                config.write("[target]\ncache_bytes = 0\n")
        with daemon.Daemon(args.programs, home / "target", None, volume_servers={cluster.server: [cluster.volume_dir]},
                           flags=["--cpus", str(cpus[-1]), *flags]) as target:
            target.wait_serving(file.vid for file in cluster.volume_files())
            with daemon.Daemon(args.programs, home / "gateway", None,
                               flags=["--cpus", str(cpus[0]), "--master", cluster.master,
                                      *daemon.peer_flags(home / "gateway.toml", kelpds=address)]) as gateway:
                made = Lab(args.programs, home, cluster, target, gateway, "as installed" if cache else "no needle cache",
                           (cpus[0], cpus[-1]), *listings, slice_s=0.1 if args.quick else 0.3)
                process.wait_until("reads over TCP", lambda: taught(made), [target.child, gateway.child])
                yield made


def taught(made: Lab) -> bool:
    """The first read of a volume goes over HTTP and tells which kelpd to ask."""
    for fids in (made.small, made.large):
        made.loadgen("--fids", fids, "--size", LARGE_BYTES, "--count", 2 * SMALL)
    try:
        made.generate(made.small, SMALL_BYTES, 1)
        made.generate(made.large, LARGE_BYTES, 1)
    except process.LabError:
        return False
    return True


def own_time_us(kelpd: daemon.Daemon) -> float:
    """From hearing a request to answering it, the median of all so far."""
    answer = json.loads(kelpd.kelpctl("--json", "peers").stdout)
    return max(peer["traffic"]["p50_us"] for peer in answer["peers"] if peer["role"] == "gateway" and peer["traffic"])


def beside_ping_pong(made: Lab, pairs: int, must: float | None) -> tuple[list[float], list[figures.Figure]]:
    kelp, bare = [], []
    for _ in range(pairs):
        kelp.append(made.generate(made.small, SMALL_BYTES, 1)["latency_us"]["p50"])
        bare.append(made.bare("ping-pong", "--request", 64, "--answer", SMALL_BYTES)["p50_us"])
    ratios = [one / other for one, other in zip(kelp, bare)]
    return kelp, [figures.of_samples("bare TCP ping-pong, 64 B and 4 KiB, p50", bare, "low", "us"),
                  figures.of_samples(f"Kelp over TCP, 4 KiB, depth 1, p50, {made.how}", kelp, "low", "us"),
                  figures.of_samples(f"Kelp over TCP p50 / bare ping-pong p50, {made.how}", ratios, "low", "x", must)]


def one_at_a_time(made: Lab, pairs: int) -> list[figures.Figure]:
    kelp, measured = beside_ping_pong(made, pairs, 1.3)
    bare_us, kelp_us = measured[0].value, measured[1].value
    target_us = own_time_us(made.target)
    program = made.program("--pairs", pairs, "--slice", int(made.slice_s * 1000))
    http_us, program_us = (program[way]["latency_us"]["p50"] for way in ("http", "kelp"))
    stages = {"both hosts' sockets, as in the ping-pong": bare_us,
              "the target, from hearing to answering": target_us,
              "the gateway's worker": kelp_us - bare_us - target_us,
              "the program's ring, its sleep, and CPUs that three share": program_us - kelp_us}
    return [*measured,
            figures.of_samples("weed HTTP keep-alive p50", [http_us], "low", "us"),
            figures.of_samples("weed HTTP p50 / Kelp over TCP p50", [http_us / one for one in kelp], "high", "x", must=3),
            figures.of_samples("the same read by a program (three processes, two CPUs), p50", [program_us], "low", "us"),
            *(figures.of_samples(f"of that: {stage}", [took], "low", "us") for stage, took in stages.items())]


def per_cpu_second(made: Lab, pairs: int) -> list[figures.Figure]:
    kelp, http, ratios = [], [], []
    for _ in range(pairs):
        before = process.cpu_s(made.target.child.pid)
        result = made.generate(made.small, SMALL_BYTES, DEEP)
        kelp.append(result["requests"] / (process.cpu_s(made.target.child.pid) - before))
        before = process.cpu_s(made.cluster.server_pid)
        # No warm-up: its reads would be the server's work, too, and are not counted.
        said = made.program("--depth", DEEP, "--pairs", 1, "--slice", int(made.slice_s * 1000), "--warm-up", 0)
        http.append(said["http"]["reads"] / (process.cpu_s(made.cluster.server_pid) - before))
        ratios.append(kelp[-1] / http[-1])
    return [figures.of_samples(f"requests per CPU-second of the target, 4 KiB, depth {DEEP}", kelp, "high", "/s"),
            figures.of_samples(f"requests per CPU-second of weed, HTTP, depth {DEEP}", http, "high", "/s"),
            figures.of_samples("requests per CPU-second, target / weed", ratios, "high", "x", must=5)]


def throughput(made: Lab, pairs: int) -> list[figures.Figure]:
    kelp, bare = [], []
    for _ in range(pairs):
        kelp.append(made.generate(made.large, LARGE_BYTES, LARGE_DEPTH)["bytes_per_s"] / 1e9)
        bare.append(made.bare("stream", "--message", LARGE_BYTES)["bytes_per_s"] / 1e9)
    ratios = [one / other for one, other in zip(kelp, bare)]
    zero_copy = [made.bare("stream", "--message", LARGE_BYTES, "--zero-copy")["bytes_per_s"] / 1e9
                 for _ in range(max(1, pairs // 3))]
    return [figures.of_samples("bare io_uring stream of 1 MiB messages", bare, "high", "GB/s"),
            figures.of_samples("the same with zero-copy sends", zero_copy, "high", "GB/s"),
            figures.of_samples(f"Kelp over TCP, 1 MiB, depth {LARGE_DEPTH}", kelp, "high", "GB/s"),
            figures.of_samples("throughput, Kelp over TCP / bare stream", ratios, "high", "x", must=0.85)]


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    pairs = 2 if args.quick else 31
    with lab(args, say) as made:
        say(f"4 KiB one at a time, and the bare ping-pong: {pairs} pairs of slices of {made.slice_s:g} s")
        measured = one_at_a_time(made, pairs)
        say(f"4 KiB at depth {DEEP}, and HTTP at the same depth")
        measured += per_cpu_second(made, 2 if args.quick else 9)
        say(f"1 MiB at depth {LARGE_DEPTH}, and the bare stream: {pairs} pairs")
        measured += throughput(made, pairs)
    with lab(args, say, cache=False) as made:
        say(f"4 KiB one at a time, each read from the volume, and the bare ping-pong: {pairs} pairs")
        return measured + beside_ping_pong(made, pairs, None)[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
