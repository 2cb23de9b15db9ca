#!/usr/bin/env python3
"""Measures what http_reads.sh says. Run http_reads.sh."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent / "tests" / "live")]
import stand_in  # noqa: E402
from kelplab import benchmark, daemon, figures, load, process, weed  # noqa: E402

OBJECTS = 64
OBJECT_BYTES = 4096
SILENT_VOLUME = 1_000_000  # nobody has it but the stand-in that never answers


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs = args.programs
    binary = weed.install(weed.DEFAULT_VERSION, say)
    worker_flags, client_prefix = process.worker_and_client_cpus()
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        fids = cluster.assign(OBJECTS)
        for fid in fids:
            cluster.put(fid, random.randbytes(OBJECT_BYTES))
        listing = home / "fids"
        listing.write_text("\n".join(fids) + "\n")

        def compare(kelpd: daemon.Daemon, *options: object) -> list[figures.Figure]:
            return load.figures_of([*client_prefix, programs / "kelp-http-compare", "--run-dir", kelpd.run_dir, "--fids", listing,
                                    *options], home)

        pairs, reads = (11, 50) if args.quick else (201, 200)
        with daemon.Daemon(programs, home / "gateway", None, flags=[*worker_flags, "--master", cluster.master]) as kelpd:
            say(f"kelpd's HTTP path and libcurl alone in turns: {pairs} pairs of slices of {reads} reads")
            measured = compare(kelpd, "--server", cluster.server, "--pairs", pairs, "--reads", reads)
        with stand_in.StandIn(stand_in.never_answers) as silent, \
                stand_in.StandIn(stand_in.Master({SILENT_VOLUME: [silent.url]})) as master, \
                daemon.Daemon(programs, home / "local", cluster.volume_dir,
                              flags=[*worker_flags, "--master", master.url]) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            pairs, reads = (3, 500) if args.quick else (61, 2000)
            say(f"local reads beside reads that nobody answers, and alone: {pairs} pairs of slices of {reads} reads")
            measured += compare(kelpd, "--stalled", f"{SILENT_VOLUME},0112345678", "--pairs", pairs, "--reads", reads)
            if silent.hits == 0:
                raise process.LabError("the server that never answers was never asked, so nothing stalled")
    return measured


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few slices: whether it works, not how fast")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
