#!/usr/bin/env python3
"""Measures what local.sh says. Run local.sh."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

OBJECTS = 64
OBJECT_BYTES = 4096
DEPTHS = (1, 16, 32)


def of_pairs(name: str, ratio: dict[str, float], must: float | None) -> figures.Figure:
    return figures.Figure(name, ratio["median"], ratio["low"], ratio["high"], must, "high", "x")


def per_cpu_second(bench: load.Bench, depth: int, pairs: int) -> list[figures.Figure]:
    result = bench.run("--depth", depth, "--batch", max(1, depth // 4), "--against-http", bench.server, "--http-pid",
                       bench.server_pid, "--pairs", pairs)
    measured = []
    for side in ("kelp", "http"):
        rate = result[side]["reads_per_cpu_s"]
        if rate is None:
            raise process.LabError(f"no CPU time is known of the {side} server")
        name = {"kelp": "Kelp", "http": "HTTP"}[side]
        measured.append(figures.Figure(f"{name} requests per CPU-second, depth {depth}", rate, rate, rate, None, "high", "/s"))
    measured.append(of_pairs(f"requests per CPU-second, Kelp / HTTP, depth {depth}",
                             result["ratios"]["kelp_reads_per_cpu_s_per_http"], 5))
    return measured


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs, quick = args.programs, args.quick
    binary = weed.install(weed.DEFAULT_VERSION, say)
    worker_flags, client_prefix = process.worker_and_client_cpus()
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        fids = cluster.assign(OBJECTS)
        for fid in fids:
            cluster.put(fid, random.randbytes(OBJECT_BYTES))
        with daemon.Daemon(programs, home, cluster.volume_dir, flags=worker_flags) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            listing = home / "fids"
            listing.write_text("\n".join(fids) + "\n")
            pairs = 101 if quick else 4001
            say(f"Kelp and the in-process floor in turns: {pairs} pairs of slices of 2 ms")
            measured = load.figures_of([*client_prefix, programs / "kelp-floor-compare", "--run-dir", kelpd.run_dir,
                                        "--volume-dir", cluster.volume_dir, "--fids", listing, "--pairs", pairs,
                                        *(["--worker-cpu", worker_flags[-1]] if worker_flags else [])], home)
            bench = load.Bench(programs, kelpd.run_dir, listing, client_prefix, cluster.server, cluster.server_pid)
            pairs = 3 if quick else 61
            for depth in DEPTHS[:2] if quick else DEPTHS:
                say(f"Kelp and HTTP in turns at depth {depth}: {pairs} pairs of slices of 200 ms")
                measured += per_cpu_second(bench, depth, pairs)
    return measured


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
