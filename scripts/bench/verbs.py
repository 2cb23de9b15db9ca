#!/usr/bin/env python3
"""Measures what verbs.sh says. Run verbs.sh."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, rdma_lab, weed  # noqa: E402

HARDWARE_COUNTERS = Path(f"/sys/class/infiniband/{rdma_lab.DEVICE}/ports/1/hw_counters")
RNR = ("rcvd_rnr_err", "send_rnr_err", "retry_rnr_exceeded_err")
RETRIES = ("completer_retry_err", "retry_exceeded_err")
COUNTED_READS = 10_000
# Of a worker that does not sleep while there are reads.
NO_SLEEP_US = 100_000


@dataclass(frozen=True)
class Load:
    """Reads of one size, at one depth."""

    name: str
    size: int
    depth: int
    needles: int
    must: float  # Kelp's throughput over the bare loop's


SMALL = Load("4 KiB", 4096, 32, 64, 0.85)
MEDIUM = Load("64 KiB", 65536, 32, 16, 0.9)
LARGE = Load("1 MiB", 1 << 20, 4, 8, 0.9)
LOADS = (SMALL, MEDIUM, LARGE)


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    pairs: int
    slice_s: float        # of reads one at a time, and small ones
    large_slice_s: float  # of others
    idle_s: float
    messages: int         # of perftest


FULL, QUICK = Extent(9, 1, 2, 10, 5000), Extent(2, 0.2, 0.4, 2, 500)


@dataclass(frozen=True)
class Lab:
    """Where reads come by RDMA, and how much is measured there."""

    rdma: rdma_lab.RdmaLab
    extent: Extent

    def slice_s(self, each: Load, depth: int) -> float:
        return self.extent.slice_s if each is SMALL or depth == 1 else self.extent.large_slice_s

    def generate(self, each: Load, depth: int) -> dict[str, Any]:
        return self.rdma.generate(each.size, depth, self.slice_s(each, depth))

    def bare_reads(self, each: Load, depth: int) -> dict[str, Any]:
        return self.rdma.bare_reads(each.size, depth, self.slice_s(each, depth))

    def one_way_us(self, program: str, size: int) -> float:
        return self.rdma.one_way_us(program, size, self.extent.messages)


# ---- counts ----------------------------------------------------------------------------------------------------------


def times_us(kelpd: daemon.Daemon) -> dict[str, float]:
    """CPU time of its threads so far, in user space and in the kernel."""
    user = system = 0
    for task in Path(f"/proc/{kelpd.child.pid}/task").glob("*/stat"):
        words = task.read_text().rpartition(")")[2].split()
        user, system = user + int(words[11]), system + int(words[12])
    tick_us = 1e6 / os.sysconf("SC_CLK_TCK")
    return {"user_us": user * tick_us, "system_us": system * tick_us}


def counts_now(made: Lab) -> dict[str, float]:
    """All that only goes up."""
    counts: dict[str, float] = {name: int((HARDWARE_COUNTERS / name).read_text()) for name in RNR + RETRIES}
    for name, kelpd in (("gateway", made.rdma.gateway), ("target", made.rdma.target)):
        counts |= {f"{name} {key}": value for key, value in (made.rdma.peer_of(kelpd)["adapter"] | times_us(kelpd)).items()}
        counts[f"{name} sleeps"] = worker_counts(kelpd)["sleeps"]
    return counts


def worker_counts(kelpd: daemon.Daemon) -> dict[str, int]:
    return kelpd.control("/stats")["workers"][0]["counters"]


def counted(made: Lab, each: Load, depth: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What the generator says of a slice, and what was counted meanwhile, per request."""
    before = counts_now(made)
    result = made.generate(each, depth)
    after = counts_now(made)
    return result, {name: (after[name] - count) / result["requests"] for name, count in before.items()}


def sleeps_under_load(made: Lab) -> dict[str, float]:
    """Per 1 000 requests of a slice in the middle of a longer load: before and after it there is nothing to do."""
    counts = []
    running = threading.Thread(target=made.rdma.loadgen, args=(SMALL.size, "--depth", SMALL.depth, "--duration", 3 * made.extent.slice_s))
    begun = worker_counts(made.rdma.gateway)["peer_reads"]
    running.start()
    try:
        while running.is_alive() and worker_counts(made.rdma.gateway)["peer_reads"] == begun:
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(made.extent.slice_s)
            counts.append({"gateway": worker_counts(made.rdma.gateway), "target": worker_counts(made.rdma.target)})
    finally:
        running.join()
    before, after = counts
    requests = max(1, after["gateway"]["peer_reads"] - before["gateway"]["peer_reads"])
    return {name: 1000 * (after[name]["sleeps"] - before[name]["sleeps"]) / requests for name in before}


# ---- figures ---------------------------------------------------------------------------------------------------------


def one_at_a_time(made: Lab) -> list[figures.Figure]:
    steps: dict[str, Callable[[], float]] = {
        "kelp": lambda: made.generate(SMALL, 1)["latency_us"]["p50"],
        "send": lambda: made.one_way_us("ib_send_lat", 64),
        "pread": lambda: made.rdma.bare("pread", SMALL.size, made.extent.slice_s)["p50_us"],
        "write": lambda: made.one_way_us("ib_write_lat", SMALL.size),
        "bare": lambda: made.bare_reads(SMALL, 1)["p50_us"],
    }
    rounds = [{name: step() for name, step in steps.items()} for _ in range(made.extent.pairs)]
    of = {name: [one[name] for one in rounds] for name in steps}
    parts = [one["send"] + one["pread"] + one["write"] for one in rounds]
    ratio = figures.of_samples("Kelp p50 / the sum of its parts, 4 KiB, depth 1",
                               [kelp / part for kelp, part in zip(of["kelp"], parts)], "low", "x", 1.3)
    target_us = made.rdma.peer_of(made.rdma.target)["traffic"]["p50_us"]
    kelp = figures.of_samples("Kelp by RDMA, 4 KiB, depth 1, p50", of["kelp"], "low", "us")
    network_us = sum(figures.of_samples("", of[name], "low", "us").value for name in ("send", "write"))
    stages = {"perftest's send and write": network_us,
              "the target, from hearing to answering": target_us,
              "both workers' turns, doorbells and wake-ups": kelp.value - network_us - target_us}
    return [figures.of_samples("ib_send_lat, 64 B, one way, p50", of["send"], "low", "us"),
            figures.of_samples("bare pread and CRC-32C of 4 KiB, p50", of["pread"], "low", "us"),
            figures.of_samples("ib_write_lat, 4 KiB, one way, p50", of["write"], "low", "us"),
            figures.of_samples("bare loop, 4 KiB, depth 1, p50", of["bare"], "low", "us"),
            kelp, ratio,
            figures.of_samples("Kelp p50 / bare loop p50, 4 KiB, depth 1",
                               [one / other for one, other in zip(of["kelp"], of["bare"])], "low", "x"),
            *(figures.of_samples(f"of that: {stage}", [took], "low", "us") for stage, took in stages.items())]


def throughput(made: Lab, each: Load) -> list[figures.Figure]:
    kelp, bare, counts = [], [], []
    for _ in range(made.extent.pairs):
        result, count = counted(made, each, each.depth)
        kelp.append(result["bytes_per_s"] / 1e6)
        counts.append(count)
        bare.append(made.bare_reads(each, each.depth))
    where = f"{each.name}, depth {each.depth}"
    bare_speed = [one["bytes_per_s"] / 1e6 for one in bare]
    ratio = figures.of_samples(f"throughput, Kelp / bare loop, {where}",
                               [one / other for one, other in zip(kelp, bare_speed)], "high", "x", each.must)
    measured = [figures.of_samples(f"bare loop, {where}", bare_speed, "high", "MB/s"),
                figures.of_samples(f"Kelp by RDMA, {where}", kelp, "high", "MB/s"), ratio]
    if each is SMALL:
        measured += per_request(counts, [sleeps_under_load(made) for _ in range(made.extent.pairs)])
    if ratio.verdict() != "met":
        measured += where_time_goes(where, counts, bare)
    return measured


def per_request(counts: list[dict[str, float]], sleeps: list[dict[str, float]]) -> list[figures.Figure]:
    def figure(name: str, must: float, value: Callable[[dict[str, float]], float], unit: str = "") -> figures.Figure:
        return figures.of_samples(name, [value(one) for one in counts], "low", unit, must)

    return [figure("doorbells per request, gateway", 0.15, lambda one: one["gateway doorbells"]),
            figure("doorbells per request, target", 0.1, lambda one: one["target doorbells"]),
            figure("signalled of what the target posts, per answer", 1 / 8, lambda one: one["target signalled"]),
            figure("receiver not ready, per request", 0, lambda one: sum(one[name] for name in RNR)),
            figure("retries, per request", 1e-3, lambda one: sum(one[name] for name in RETRIES)),
            *(figures.of_samples(f"sleeps per 1 000 requests, {name}", [one[name] for one in sleeps], "low", "", 1)
              for name in ("gateway", "target"))]


def where_time_goes(where: str, counts: list[dict[str, float]], bare: list[dict[str, Any]]) -> list[figures.Figure]:
    """Of one request. A worker that spins spends the rest of its time in user space, too."""
    stages = {f"{side}, {kind}": [one[f"{side} {key}"] for one in counts]
              for side in ("gateway", "target") for kind, key in (("in the kernel", "system_us"), ("in user space", "user_us"),
                                                                  ("doorbells", "doorbells"), ("sleeps", "sleeps"))}
    for side, name in (("asks", "bare loop's asker"), ("answers", "bare loop's answerer")):
        stages[f"{name}, in the kernel"] = [one["system_us_per_request"][side] for one in bare]
        stages[f"{name}, doorbells"] = [one["doorbells_per_request"][side] for one in bare]
    return [figures.of_samples(f"{where}, per request: {stage}", took, "low",
                               "us" if stage.endswith(("kernel", "space")) else "") for stage, took in stages.items()]


def beside_no_sleep(made: Lab) -> list[figures.Figure]:
    adaptive, polling = [], []
    for _ in range(made.extent.pairs):
        adaptive.append(made.generate(SMALL, 1)["latency_us"]["p50"])
        made.rdma.spin(NO_SLEEP_US)
        try:
            polling.append(made.generate(SMALL, 1)["latency_us"]["p50"])
        finally:
            made.rdma.spin(rdma_lab.SPIN_US)
    return [figures.of_samples("Kelp by RDMA, 4 KiB, depth 1, p50, never asleep", polling, "low", "us"),
            figures.of_samples("p50 of workers that sleep / of those that do not",
                               [one / other for one, other in zip(adaptive, polling)], "low", "x", 1.1)]


def idle(made: Lab) -> list[figures.Figure]:
    kelpds = {"gateway": made.rdma.gateway.child.pid, "target": made.rdma.target.child.pid}
    time.sleep(1)
    before, started = {name: process.cpu_s(pid) for name, pid in kelpds.items()}, time.monotonic()
    time.sleep(made.extent.idle_s)
    elapsed = time.monotonic() - started
    return [figures.of_samples(f"CPU of an idle kelpd, connected by RDMA: {name}",
                               [(process.cpu_s(pid) - before[name]) / elapsed * 100], "low", "%", 1)
            for name, pid in kelpds.items()]


def system_calls(made: Lab) -> list[figures.Figure]:
    """Of the thread of a program that reads, and polls: what N more reads add. A worker that sleeps is woken by one, and it does
    where its CPU is another's. The first thread is kelp-bench's own, which shows how far it is."""
    rdma, reads = made.rdma, COUNTED_READS
    # Without the look at each object before the run.
    argv = [rdma.programs / "kelp-bench", "--json", "--quiet", "--run-dir", rdma.gateway.run_dir, "--fids", rdma.fids(SMALL.size),
            "--range", f"0:{SMALL.size}", "--depth", SMALL.depth, "--warm-up", 0, "--timeout", 60000, "--count"]

    def per_read() -> float:
        few, many = (sum(load.system_calls([*argv, count], rdma.home)[1:]) for count in (reads, 2 * reads))
        return max(0.0, (many - few) / reads)  # what comes by time may be less the second time

    asleep = per_read()
    rdma.spin(NO_SLEEP_US)
    try:
        awake = per_read()
    finally:
        rdma.spin(rdma_lab.SPIN_US)
    what = f"system calls of a thread that reads and polls, per read, depth {SMALL.depth}"
    return [figures.of_samples(f"{what}: workers that sleep", [asleep], "low", ""),
            figures.of_samples(f"{what}: workers that do not", [awake], "low", "", 0)]


def by_program(made: Lab) -> list[figures.Figure]:
    """kelp-bench through the gateway and over HTTP in turns. Where it runs is the scheduler's choice."""
    rdma = made.rdma
    bench = load.Bench(rdma.programs, rdma.gateway.run_dir, rdma.fids(SMALL.size))
    said = bench.run("--sleep", "--against-http", rdma.cluster.server, "--pairs", made.extent.pairs, "--slice",
                     int(made.extent.slice_s * 500))
    program_us, http_us = (said[way]["latency_us"]["p50"] for way in ("kelp", "http"))
    return [figures.of_samples("the same read by a program (three processes, two CPUs), p50", [program_us], "low", "us"),
            figures.of_samples("weed HTTP keep-alive p50", [http_us], "low", "us"),
            figures.of_samples("weed HTTP p50 / the program's", [http_us / program_us], "high", "x")]


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    extent = QUICK if args.quick else FULL
    with rdma_lab.rdma_lab(args.programs, {each.size: each.needles for each in LOADS}, say) as rdma:
        made = Lab(rdma, extent)
        say(f"4 KiB one at a time, perftest and the bare loop: {extent.pairs} turns")
        measured = one_at_a_time(made)
        for each in LOADS:
            say(f"{each.name} at depth {each.depth}, and the bare loop: {extent.pairs} pairs")
            measured += throughput(made, each)
        say(f"workers that sleep and that do not: {extent.pairs} pairs")
        measured += beside_no_sleep(made)
        say("by a program")
        measured += [*by_program(made), *system_calls(made)]
        say(f"{extent.idle_s:g} s of silence")
        return measured + idle(made)


# ---- the guest -------------------------------------------------------------------------------------------------------


def run_in_guest() -> int:
    """This program, with the same options, whose report is printed."""
    with tempfile.TemporaryDirectory() as out:
        try:
            code = rdma_lab.run_in_guest(Path(__file__).resolve(), sys.argv[1:], Path(out))
        except weed.Unreachable as error:
            print(f"skipped: {error}", file=sys.stderr)
            return benchmark.SKIPPED
        report = Path(out) / "report"
        if report.exists():
            print(report.read_text(), end="")
    return code


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")
    parser.add_argument("--in-guest", action="store_true", help="measure here, where there is the RDMA device")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options) if "--in-guest" in sys.argv else run_in_guest())
