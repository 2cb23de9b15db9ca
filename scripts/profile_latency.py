#!/usr/bin/env python3
"""Profiles the latency of reads: a matrix of sizes and depths with kelp-bench, Kelp and weed's HTTP in turns.

By --path local a kelpd reads the volume's files itself; by --path verbs the kelpd beside the volume server writes them into the
program's memory by RDMA, in the Soft-RoCE guest (scripts/soft-roce), whose three spinning processes share two emulated CPUs: look at
its ratios, not at its microseconds.

Leaves in the output directory: the raw HdrHistogram logs (*.hlog, tags "kelp" and "http"), profile.json (what was measured),
latency.csv (percentiles), stages.csv (what a 4 KiB read consists of), a PNG per size and one of the stages, and index.html, which
holds the pictures and the numbers in itself. Run profile_latency.sh, which builds what is needed; matplotlib and hdrhistogram come
from PyPI into build/profile-venv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kelplab import benchmark, daemon, figures, load, process, rdma_lab, venv, weed  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("matplotlib==3.9.2", "hdrhistogram==0.10.3")
SIZES = {"1 KiB": 1 << 10, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
DEPTHS = (1, 4, 32)
STAGES_SIZE = SIZES["4 KiB"]
OBJECTS = 32
PERFTEST_MESSAGES = 5000

# (what, microseconds): parts of a read, and whole ones.
Stages = list[tuple[str, float]]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    sizes: Mapping[str, int]
    depths: Sequence[int]
    pairs: int
    quick: bool


FULL = Extent(SIZES, DEPTHS, 21, False)
QUICK = Extent({name: SIZES[name] for name in ("4 KiB", "64 KiB")}, DEPTHS[:2], 3, True)


def fill(cluster: weed.Cluster, home: Path, sizes: Mapping[str, int]) -> dict[str, Path]:
    """Stores OBJECTS objects of each size; a file of their ids by size."""
    listings = {}
    for name, length in sizes.items():
        fids = cluster.assign(OBJECTS)
        for fid in fids:
            cluster.put(fid, random.randbytes(length))
        listings[name] = home / f"fids-{length}"
        listings[name].write_text("\n".join(fids) + "\n")
    return listings


def matrix(bench_of: Mapping[str, load.Bench], options: Sequence[object], extent: Extent, output: Path,
           say: process.Progress) -> list[dict[str, Any]]:
    """A run per cell."""
    runs = []
    for name, size in extent.sizes.items():
        for depth in extent.depths:
            say(f"{name}, depth {depth}: {extent.pairs} pairs of slices of 200 ms")
            log = f"{size}-depth{depth}.hlog"
            bench = bench_of[name]
            result = bench.run("--depth", depth, "--against-http", bench.server, "--http-pid", bench.server_pid, "--pairs",
                               extent.pairs, "--hdr-log", output / log, "--verify", f"http://{bench.server}", *options)
            runs.append({"size": name, "depth": depth, "log": log, "result": result})
    return runs


def whole_http_read(runs: Sequence[Mapping[str, Any]]) -> Stages:
    return [("weed over HTTP keep-alive: whole read", run["result"]["http"]["latency_us"]["p50"])
            for run in runs if run["size"] == "4 KiB" and run["depth"] == 1]


def local_stages(programs: Path, cluster: weed.Cluster, home: Path, listing: Path, quick: bool) -> Stages:
    """Each measured by itself, by a daemon that has served nothing else."""
    cpus = sorted(os.sched_getaffinity(0))
    worker, client = process.worker_and_client_cpus()
    flags = ["--pairs", 101 if quick else 1001]
    with daemon.Daemon(programs, home, cluster.volume_dir, flags=worker) as kelpd:
        kelpd.wait_serving(file.vid for file in cluster.volume_files())
        ring = load.figures_of([programs / "kelp-ring-compare", "--run-dir", kelpd.run_dir, "--worker-cpu", cpus[-1],
                                "--client-cpu", cpus[0], *flags], home)
        floor = load.figures_of([*client, programs / "kelp-floor-compare", "--run-dir", kelpd.run_dir, "--volume-dir",
                                 cluster.volume_dir, "--fids", listing, *flags], home)
        served = kelpd.control("/stats")["workers"][0]["latency_us"]["read"]["p50"]
    value = {figure.name: figure.value for figure in (*ring, *floor)}
    return [("two threads, two cache lines: ping-pong", value["two-line ping-pong"] / 1000),
            ("ring no-op, client API to worker and back", value["ring no-op round trip"] / 1000),
            ("in-process floor: look-up, fstat, pread, CRC", value["in-process floor p50, 4 KiB"]),
            ("worker: request taken to completion written", served),
            ("Kelp: whole read", value["Kelp p50, 4 KiB"])]


def measure_local(programs: Path, output: Path, extent: Extent, say: process.Progress) -> dict[str, Any]:
    binary = weed.install(weed.DEFAULT_VERSION, say)
    worker_flags, client_prefix = process.worker_and_client_cpus()
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        listings = fill(cluster, home, extent.sizes)
        with daemon.Daemon(programs, home, cluster.volume_dir, flags=worker_flags) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            bench_of = {name: load.Bench(programs, kelpd.run_dir, listing, client_prefix, cluster.server, cluster.server_pid)
                        for name, listing in listings.items()}
            runs = matrix(bench_of, [], extent, output, say)
        say("the stages of a 4 KiB read")
        stages = local_stages(programs, cluster, home, listings["4 KiB"], extent.quick)
    floor_us = next(took for what, took in stages if what.startswith("in-process floor"))
    return {"title": "reads of the volume's files", "runs": runs, "stages": [*stages, *whole_http_read(runs)],
            "floor": {"size": "4 KiB", "name": "in-process floor", "p50_us": floor_us}}


def verbs_stages(made: rdma_lab.RdmaLab, quick: bool) -> Stages:
    """Each measured by itself."""
    seconds, messages = (0.2, 500) if quick else (2, PERFTEST_MESSAGES)
    send_us = made.one_way_us("ib_send_lat", 64, messages)
    pread_us = made.bare("pread", STAGES_SIZE, seconds)["p50_us"]
    write_us = made.one_way_us("ib_write_lat", STAGES_SIZE, messages)
    bare_us = made.bare_reads(STAGES_SIZE, 1, seconds)["p50_us"]
    generated_us = made.generate(STAGES_SIZE, 1, seconds)["latency_us"]["p50"]
    return [("pread and CRC of the needle", pread_us),
            ("request, 64 B, one way: ib_send_lat", send_us),
            ("answer, 4 KiB, one way: ib_write_lat", write_us),
            ("target: request heard to answer posted", made.peer_of(made.target)["traffic"]["p50_us"]),
            ("bare loop of two threads that spin: whole read", bare_us),
            ("Kelp: whole read, by the gateway's worker itself", generated_us)]


def measure_verbs(programs: Path, output: Path, extent: Extent, say: process.Progress) -> dict[str, Any]:
    with rdma_lab.rdma_lab(programs, {size: OBJECTS for size in extent.sizes.values()}, say) as made:
        # First: what the target takes is told of all that it has answered.
        say("the stages of a 4 KiB read")
        stages = verbs_stages(made, extent.quick)
        cluster = made.cluster
        bench_of = {name: load.Bench(programs, made.gateway.run_dir, made.fids(size), (), cluster.server, cluster.server_pid)
                    for name, size in extent.sizes.items()}
        # Three that spin are too many for two CPUs.
        runs = matrix(bench_of, ["--sleep"], extent, output, say)
        for run in runs:
            paths = run["result"]["kelp"]["paths"]
            if paths.get("verbs", 0) < 0.9 * sum(paths.values()):
                raise process.LabError(f"reads did not come by RDMA: {paths}")
    whole_us = next(run["result"]["kelp"]["latency_us"]["p50"] for run in runs if run["size"] == "4 KiB" and run["depth"] == 1)
    stages.append(("Kelp: whole read, by a program that sleeps", whole_us))
    return {"title": "reads by RDMA, on Soft-RoCE in a virtual machine without KVM", "runs": runs,
            "stages": [*stages, *whole_http_read(runs)], "floor": None}


def measure(args: argparse.Namespace, say: process.Progress) -> None:
    """Writes profile.json and the logs."""
    way = measure_local if args.path == "local" else measure_verbs
    measured = way(args.programs, args.output, QUICK if args.quick else FULL, say)
    (args.output / "profile.json").write_text(json.dumps(measured | {"machine": figures.machine()}, indent=2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True, help="directory of the built programs")
    parser.add_argument("--path", choices=("local", "verbs"), default="local", help="what the bytes come by")
    parser.add_argument("--output", type=lambda path: Path(path).resolve(), default=Path("build/latency-profile").resolve(),
                        help="where the results go")
    parser.add_argument("--quick", action="store_true", help="a small matrix: whether it works, not how fast")
    parser.add_argument("--in-guest", action="store_true", help="measure here, where there is the RDMA device; draw nothing")
    args = parser.parse_args()
    process.exit_on_signals()
    say = process.Progress()
    try:
        if args.in_guest:
            args.output = Path("/out")
            measure(args, say)
            return 0
        venv.enter(REPOSITORY / "build" / "profile-venv", PACKAGES, say)
        from kelplab import latency_pages  # noqa: PLC0415  (needs the packages of the venv)

        args.output.mkdir(parents=True, exist_ok=True)
        if args.path == "local":
            measure(args, say)
        elif code := rdma_lab.run_in_guest(Path(__file__).resolve(), ["--programs", str(args.programs), "--path", "verbs",
                                                                      *(["--quick"] if args.quick else [])], args.output):
            return code
        say("drawing")
        latency_pages.write(args.output)
        say(f"done: {args.output / 'index.html'}")
    except weed.Unreachable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return benchmark.SKIPPED
    except process.LabError as error:
        print(f"profile failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
