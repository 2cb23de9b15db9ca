#!/usr/bin/env python3
"""Measures what verbs.sh says. Run verbs.sh."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

DEVICE, ADDRESS, RDMA_PORT = "rxe0", "10.9.0.1", 18515
HARDWARE_COUNTERS = Path(f"/sys/class/infiniband/{DEVICE}/ports/1/hw_counters")
RNR = ("rcvd_rnr_err", "send_rnr_err", "retry_rnr_exceeded_err")
RETRIES = ("completer_retry_err", "retry_exceeded_err")
PERFTEST_PORT = 18600
LIMIT_S = 1500
# Of a worker that does not sleep while there are reads; and the default.
NO_SLEEP_US, SPIN_US = 100_000, 50


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
    """A weed, the kelpd beside it, and one that asks that by RDMA, each worker on a CPU of its own."""

    programs: Path
    home: Path
    cluster: weed.Cluster
    target: daemon.Daemon
    gateway: daemon.Daemon
    cpus: tuple[int, int]  # of the gateway's worker and the target's
    extent: Extent

    def fids(self, each: Load) -> Path:
        return self.home / f"fids-{each.size}"

    def slice_s(self, each: Load, depth: int) -> float:
        return self.extent.slice_s if each is SMALL or depth == 1 else self.extent.large_slice_s

    def loadgen(self, each: Load, *options: object) -> dict[str, Any]:
        done = self.gateway.kelpctl("--json", "loadgen", "--fids", str(self.fids(each)), "--size", str(each.size),
                                    *map(str, options), timeout_s=120)
        if done.returncode != 0:
            raise process.LabError(f"kelpctl loadgen ended with exit code {done.returncode}: {done.stderr!r}")
        return json.loads(done.stdout)

    def generate(self, each: Load, depth: int) -> dict[str, Any]:
        result = self.loadgen(each, "--depth", depth, "--duration", self.slice_s(each, depth))
        # Once a minute where a volume is gets asked anew, over HTTP, by all that begins meanwhile.
        if result["paths"].get("verbs", 0) < 0.99 * result["requests"] - depth:
            raise process.LabError(f"reads did not come by RDMA: {result['paths']}")
        return result

    def bare(self, what: str, each: Load, *words: object, depth: int = 1) -> dict[str, Any]:
        return json.loads(load.output_of([self.programs / "kelp-verbs-bare", what, "--file", self.home / f"bare-{each.size}",
                                          "--size", each.size, "--cpus", ",".join(map(str, self.cpus)), "--seconds",
                                          self.slice_s(each, depth), *words]))

    def bare_reads(self, each: Load, depth: int) -> dict[str, Any]:
        return self.bare("reads", each, "--address", ADDRESS, "--depth", depth, depth=depth)

    def spin(self, microseconds: int) -> None:
        """Of both workers, before they sleep."""
        for kelpd in (self.target, self.gateway):
            config = kelpd.run_dir.parent / "kelpd.toml"
            config.write_text(config.read_text().rpartition("spin_us = ")[0] + f"spin_us = {microseconds}\n")
            if kelpd.kelpctl("reload").returncode != 0:
                raise process.LabError("kelpd cannot be told how long to spin")


def toml(home: Path, peer: str, rdma: str, target: str = "") -> list[str]:
    """Flags of a kelpd with these items. spin_us comes last: see Lab.spin."""
    home.mkdir()
    (home / "kelpd.toml").write_text(f"[peer]\nallow_unauthenticated = true\n{peer}\n[rdma]\n{rdma}\n{target}\n"
                                     f"[worker]\nspin_us = {SPIN_US}\n")
    return ["--config", str(home / "kelpd.toml")]


@contextlib.contextmanager
def lab(args: argparse.Namespace, extent: Extent, say: process.Progress) -> Iterator[Lab]:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for each worker")
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with process.scratch_dir("kelp-bench-") as home, file_system(home), weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        for each in LOADS:
            fids = cluster.assign(each.needles)
            for fid in fids:
                cluster.put(fid, random.randbytes(each.size))
            (home / f"fids-{each.size}").write_text("\n".join(fids) + "\n")
            (home / f"bare-{each.size}").write_bytes(random.randbytes(each.needles * each.size))
        address = f"{ADDRESS}:{process.free_ports(1)[0]}"
        target_flags = toml(home / "target", f'listen = "{address}"', f'listen = "{ADDRESS}:{RDMA_PORT}"',
                            "[target]\ncache_bytes = 0")
        gateway_flags = toml(home / "gateway", f'kelpds = "127.0.0.1={address}"', "")
        with daemon.Daemon(args.programs, home / "target", None, volume_servers={cluster.server: [cluster.volume_dir]},
                           flags=["--cpus", str(cpus[-1]), *target_flags]) as target:
            target.wait_serving(file.vid for file in cluster.volume_files())
            with daemon.Daemon(args.programs, home / "gateway", None,
                               flags=["--cpus", str(cpus[0]), "--master", cluster.master, *gateway_flags]) as gateway:
                made = Lab(args.programs, home, cluster, target, gateway, (cpus[0], cpus[-1]), extent)
                process.wait_until("reads by RDMA", lambda: taught(made), [target.child, gateway.child], 60)
                yield made


@contextlib.contextmanager
def file_system(at: Path) -> Iterator[None]:
    """An ext4, as volumes have it. That of the guest itself can only be read by a thread that may sleep."""
    image = Path("/run/kelp-bench.ext4")
    with image.open("wb") as file:
        file.truncate(512 << 20)
    for words in (["modprobe", "--all", "loop", "ext4"], ["mkfs.ext4", "-q", str(image)],
                  ["mount", "-o", "loop", str(image), str(at)]):
        load.output_of(words)
    try:
        yield
    finally:
        load.output_of(["umount", "--lazy", str(at)])


def taught(made: Lab) -> bool:
    """The first read of a volume goes over HTTP and tells which kelpd to ask; that says over TCP that there is RDMA."""
    results = [made.loadgen(each, "--count", 2 * each.needles) for each in LOADS]
    return all(result["paths"].get("verbs", 0) == result["requests"] for result in results)


# ---- counts ----------------------------------------------------------------------------------------------------------


def peer_of(kelpd: daemon.Daemon) -> dict[str, Any]:
    """The RDMA connection, as this end of it tells."""
    answer = kelpd.control("/peers")
    found = [peer for peer in answer["peers"] if peer["path"] == "verbs" and peer["adapter"]]
    if len(found) != 1:
        raise process.LabError(f"not one RDMA connection: {answer['peers']}")
    return found[0]


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
    for name, kelpd in (("gateway", made.gateway), ("target", made.target)):
        counts |= {f"{name} {key}": value for key, value in (peer_of(kelpd)["adapter"] | times_us(kelpd)).items()}
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
    running = threading.Thread(target=made.loadgen, args=(SMALL, "--depth", SMALL.depth, "--duration", 3 * made.extent.slice_s))
    begun = worker_counts(made.gateway)["peer_reads"]
    running.start()
    try:
        while running.is_alive() and worker_counts(made.gateway)["peer_reads"] == begun:
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(made.extent.slice_s)
            counts.append({"gateway": worker_counts(made.gateway), "target": worker_counts(made.target)})
    finally:
        running.join()
    before, after = counts
    requests = max(1, after["gateway"]["peer_reads"] - before["gateway"]["peer_reads"])
    return {name: 1000 * (after[name]["sleeps"] - before[name]["sleeps"]) / requests for name in before}


# ---- figures ---------------------------------------------------------------------------------------------------------


def one_way_us(made: Lab, program: str, size: int) -> float:
    """Half a round trip, as perftest's two processes take it."""
    words = [program, "-d", DEVICE, "-F", "-s", str(size), "-n", str(made.extent.messages), "-p", str(PERFTEST_PORT)]
    on = [["taskset", "--cpu-list", str(cpu)] for cpu in made.cpus]
    server = process.Child(program, [*on[1], *words], made.home / "perftest.log")
    try:
        process.wait_until(f"{program} to listen", lambda: listens(PERFTEST_PORT), [server])
        output = load.output_of([*on[0], *words, ADDRESS])
    finally:
        server.stop(1)
    rows = [line.split() for line in output.splitlines()]
    # Bytes, messages, least, most, typical.
    typical = [float(row[4]) for row in rows if len(row) > 5 and row[0] == str(size)]
    if not typical:
        raise process.LabError(f"{program} says no figures: {output}")
    # It does not always find out how fast the CPU's clock is.
    return typical[0] if math.isfinite(typical[0]) else one_way_us(made, program, size)


def listens(port: int) -> bool:
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
               for table in ("/proc/net/tcp", "/proc/net/tcp6") for line in Path(table).read_text().splitlines()[1:])


def one_at_a_time(made: Lab) -> list[figures.Figure]:
    steps: dict[str, Callable[[], float]] = {
        "kelp": lambda: made.generate(SMALL, 1)["latency_us"]["p50"],
        "send": lambda: one_way_us(made, "ib_send_lat", 64),
        "pread": lambda: made.bare("pread", SMALL)["p50_us"],
        "write": lambda: one_way_us(made, "ib_write_lat", SMALL.size),
        "bare": lambda: made.bare_reads(SMALL, 1)["p50_us"],
    }
    rounds = [{name: step() for name, step in steps.items()} for _ in range(made.extent.pairs)]
    of = {name: [one[name] for one in rounds] for name in steps}
    parts = [one["send"] + one["pread"] + one["write"] for one in rounds]
    ratio = figures.of_samples("Kelp p50 / the sum of its parts, 4 KiB, depth 1",
                               [kelp / part for kelp, part in zip(of["kelp"], parts)], "low", "x", 1.3)
    target_us = peer_of(made.target)["traffic"]["p50_us"]
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
        made.spin(NO_SLEEP_US)
        try:
            polling.append(made.generate(SMALL, 1)["latency_us"]["p50"])
        finally:
            made.spin(SPIN_US)
    return [figures.of_samples("Kelp by RDMA, 4 KiB, depth 1, p50, never asleep", polling, "low", "us"),
            figures.of_samples("p50 of workers that sleep / of those that do not",
                               [one / other for one, other in zip(adaptive, polling)], "low", "x", 1.1)]


def idle(made: Lab) -> list[figures.Figure]:
    kelpds = {"gateway": made.gateway.child.pid, "target": made.target.child.pid}
    time.sleep(1)
    before, started = {name: process.cpu_s(pid) for name, pid in kelpds.items()}, time.monotonic()
    time.sleep(made.extent.idle_s)
    elapsed = time.monotonic() - started
    return [figures.of_samples(f"CPU of an idle kelpd, connected by RDMA: {name}",
                               [(process.cpu_s(pid) - before[name]) / elapsed * 100], "low", "%", 1)
            for name, pid in kelpds.items()]


def by_program(made: Lab) -> list[figures.Figure]:
    """kelp-bench through the gateway and over HTTP in turns. Where it runs is the scheduler's choice."""
    bench = load.Bench(made.programs, made.gateway.run_dir, made.fids(SMALL))
    said = bench.run("--sleep", "--against-http", made.cluster.server, "--pairs", made.extent.pairs, "--slice",
                     int(made.extent.slice_s * 500))
    program_us, http_us = (said[way]["latency_us"]["p50"] for way in ("kelp", "http"))
    return [figures.of_samples("the same read by a program (three processes, two CPUs), p50", [program_us], "low", "us"),
            figures.of_samples("weed HTTP keep-alive p50", [http_us], "low", "us"),
            figures.of_samples("weed HTTP p50 / the program's", [http_us / program_us], "high", "x")]


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    extent = QUICK if args.quick else FULL
    with lab(args, extent, say) as made:
        say(f"4 KiB one at a time, perftest and the bare loop: {extent.pairs} turns")
        measured = one_at_a_time(made)
        for each in LOADS:
            say(f"{each.name} at depth {each.depth}, and the bare loop: {extent.pairs} pairs")
            measured += throughput(made, each)
        say(f"workers that sleep and that do not: {extent.pairs} pairs")
        measured += beside_no_sleep(made)
        say("by a program")
        measured += by_program(made)
        say(f"{extent.idle_s:g} s of silence")
        return measured + idle(made)


# ---- the guest -------------------------------------------------------------------------------------------------------


def run_in_guest() -> int:
    """This program, with the same options. What it prints on its console is progress; the report comes by a file."""
    root = Path(__file__).resolve().parents[2]
    try:
        weed.install(weed.DEFAULT_VERSION, process.Progress())  # nothing can be fetched in there
    except weed.Unreachable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return benchmark.SKIPPED
    with tempfile.TemporaryDirectory() as out:
        report = Path(out) / "report"
        command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--in-guest"]
        guest = [root / "scripts" / "soft-roce" / "run-in-guest.sh", "--pin", "--limit", str(LIMIT_S), "--out", out, "--"]
        done = subprocess.run([*guest, "sh", "-c", 'exec "$@" >/out/report', "sh", *command], stdout=sys.stderr, check=False)
        if report.exists():
            print(report.read_text(), end="")
    return done.returncode


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")
    parser.add_argument("--in-guest", action="store_true", help="measure here, where there is the RDMA device")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options) if "--in-guest" in sys.argv else run_in_guest())
