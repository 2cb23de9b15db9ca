#!/usr/bin/env python3
"""Measures what idle.sh says. Run idle.sh.

CPU time is what the kernel has accounted to each thread (/proc/PID/task/*/schedstat, nanoseconds); the worker's is told from the
whole daemon's by asking /stats.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

CLIENTS = 16
WRITES_PER_S = 1000
WRITERS = 2
WRITTEN_BYTES = 1024


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    seconds: float  # of each measurement of CPU time
    rounds: int     # first requests
    silence_ms: int


FULL, QUICK = Extent(20, 100, 1000), Extent(2, 10, 100)


@contextlib.contextmanager
def silent_clients(programs: Path, run_dir: Path) -> Iterator[None]:
    """CLIENTS programs' worth of attached, silent clients."""
    held = subprocess.Popen([programs / "kelp-wake-compare", "--run-dir", run_dir, "--hold", str(CLIENTS)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert held.stdin and held.stdout
        if held.stdout.readline() != "attached\n":
            raise process.LabError(f"the silent clients did not attach: exit code {held.wait(10)}")
        yield
    finally:
        held.stdin.close()
        try:
            held.wait(10)
        except subprocess.TimeoutExpired:
            held.kill()
            held.wait()


def worker_cpu_s(kelpd: daemon.Daemon) -> float:
    return sum(worker["cpu_time_s"] for worker in json.loads(kelpd.kelpctl("--json", "stats").stdout)["workers"])


def write(server: str, fids: list[str], rate: float, written: Synchronized, stop: Synchronized) -> None:
    """Stores to `fids` over and over, `rate` times a second, on one keep-alive connection."""
    connection = http.client.HTTPConnection(server, timeout=10)
    body = os.urandom(WRITTEN_BYTES)
    due = time.monotonic()
    number = 0
    while not stop.value:
        connection.request("PUT", "/" + fids[number % len(fids)], body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        answer.read()
        if answer.status not in (201, 204):
            raise process.LabError(f"weed answered a write with {answer.status}")
        number += 1
        written.value = number
        # weed answers a write of what is there already without writing: no two in a row are alike.
        body = number.to_bytes(8, "little") + body[8:]
        due = max(due + 1 / rate, time.monotonic() - 0.1)  # what was missed for longer is not caught up with
        time.sleep(max(0.0, due - time.monotonic()))


@contextlib.contextmanager
def writers(cluster: weed.Cluster) -> Iterator[list[Synchronized]]:
    """Processes that write; their counts so far."""
    stop = multiprocessing.Value("b", 0)
    counts = [multiprocessing.Value("Q", 0) for _ in range(WRITERS)]
    running = [multiprocessing.Process(target=write, daemon=True,
                                       args=(cluster.server, cluster.assign(500), WRITES_PER_S / WRITERS, count, stop))
               for count in counts]
    for one in running:
        one.start()
    try:
        time.sleep(0.5)  # they connect
        yield counts
        if any(one.exitcode is not None for one in running):
            raise process.LabError("a writer has ended early; its message is above")
    finally:
        stop.value = 1
        for one in running:
            one.join(15)
            one.kill()
            one.join()


def share(kelpd: daemon.Daemon, what: str, seconds: float) -> list[figures.Figure]:
    pid = kelpd.child.pid
    started, worker, whole = time.monotonic(), worker_cpu_s(kelpd), process.cpu_s(pid)
    time.sleep(seconds)
    # In the same order: what asking costs falls on both sides.
    used_worker, used_whole, elapsed = worker_cpu_s(kelpd) - worker, process.cpu_s(pid) - whole, time.monotonic() - started
    return [figures.of_samples(f"CPU of an idle worker, {what}", [used_worker / elapsed * 100], "low", "%", must=1),
            figures.of_samples(f"CPU of all of kelpd, {what}", [used_whole / elapsed * 100], "low", "%", must=1)]


def beside_writes(kelpd: daemon.Daemon, cluster: weed.Cluster, seconds: float) -> list[figures.Figure]:
    with writers(cluster) as counts:
        before, started = sum(count.value for count in counts), time.monotonic()
        measured = share(kelpd, "beside the writes", seconds)
        rate = (sum(count.value for count in counts) - before) / (time.monotonic() - started)
    return [figures.of_samples("writes to weed meanwhile", [rate], "high", "/s"), *measured]


def first_requests(programs: Path, kelpd: daemon.Daemon, home: Path, cpus: list[int], extent: Extent) -> list[figures.Figure]:
    return load.figures_of([programs / "kelp-wake-compare", "--run-dir", kelpd.run_dir, "--worker-cpu", cpus[-1], "--client-cpu",
                            cpus[0], "--rounds", extent.rounds, "--silence-ms", extent.silence_ms], home)


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs, extent = args.programs, QUICK if args.quick else FULL
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for the worker, one for the client")
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        with daemon.Daemon(programs, home, cluster.volume_dir, flags=["--cpus", str(cpus[-1])]) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            with silent_clients(programs, kelpd.run_dir):
                say(f"{CLIENTS} silent clients: {extent.seconds:g} s quiet")
                measured = share(kelpd, f"{CLIENTS} silent clients", extent.seconds)
                say(f"and {extent.seconds:g} s beside {WRITES_PER_S} writes per second")
                measured += beside_writes(kelpd, cluster, extent.seconds)
            say(f"first requests after {extent.silence_ms} ms of silence: {extent.rounds} rounds")
            measured += first_requests(programs, kelpd, home, cpus, extent)
    return measured


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a few seconds: whether it works, not how much it costs")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
