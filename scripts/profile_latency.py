#!/usr/bin/env python3
"""Profiles the latency of reads: a matrix of sizes and depths with kelp-bench, Kelp and weed's HTTP in turns.

Leaves in the output directory: the raw HdrHistogram logs (*.hlog, tags "kelp" and "http"), latency.csv (percentiles), stages.csv
(what a 4 KiB read consists of), a PNG per size and one of the stages, and index.html, which holds the pictures and the numbers
in itself. Run profile_latency.sh, which builds what is needed; matplotlib and hdrhistogram come from PyPI into build/profile-venv.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kelplab import daemon, figures, load, process, venv, weed  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("matplotlib==3.9.2", "hdrhistogram==0.10.3")
SIZES = {"1 KiB": 1 << 10, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
DEPTHS = (1, 4, 32)
OBJECTS = 32


def fill(cluster: weed.Cluster, home: Path, sizes: dict[str, int]) -> dict[str, Path]:
    """Stores OBJECTS objects of each size; a file of their ids by size."""
    listings = {}
    for name, length in sizes.items():
        fids = cluster.assign(OBJECTS)
        for fid in fids:
            cluster.put(fid, random.randbytes(length))
        listings[name] = home / f"fids-{length}"
        listings[name].write_text("\n".join(fids) + "\n")
    return listings


def stages(programs: Path, cluster: weed.Cluster, home: Path, listing: Path, quick: bool) -> tuple[list[figures.Figure], bytes]:
    """What a 4 KiB read is made of, each measured by itself, and /stats of a daemon that has served nothing else."""
    cpus = sorted(os.sched_getaffinity(0))
    worker, client = process.worker_and_client_cpus()
    flags = ["--pairs", 101 if quick else 1001]
    with daemon.Daemon(programs, home, cluster.volume_dir, flags=worker) as kelpd:
        kelpd.wait_serving(file.vid for file in cluster.volume_files())
        ring = load.figures_of([programs / "kelp-ring-compare", "--run-dir", kelpd.run_dir, "--worker-cpu", cpus[-1],
                                "--client-cpu", cpus[0], *flags], home)
        floor = load.figures_of([*client, programs / "kelp-floor-compare", "--run-dir", kelpd.run_dir, "--volume-dir",
                                 cluster.volume_dir, "--fids", listing, *flags], home)
        return [*ring, *floor], kelpd.kelpctl("--json", "stats").stdout


def measure(programs: Path, output: Path, quick: bool, say: process.Progress) -> None:
    from kelplab import latency_pages as pages  # noqa: PLC0415  (needs the packages of the venv)

    sizes = {name: SIZES[name] for name in ("4 KiB", "64 KiB")} if quick else SIZES
    depths = DEPTHS[:2] if quick else DEPTHS
    pairs = 3 if quick else 21
    binary = weed.install(weed.DEFAULT_VERSION, say)
    worker_flags, client_prefix = process.worker_and_client_cpus()
    runs = []
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        listings = fill(cluster, home, sizes)
        with daemon.Daemon(programs, home, cluster.volume_dir, flags=worker_flags) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            for name, listing in listings.items():
                bench = load.Bench(programs, kelpd.run_dir, listing, client_prefix, cluster.server, cluster.server_pid)
                for depth in depths:
                    say(f"{name}, depth {depth}: {pairs} pairs of slices of 200 ms")
                    log = output / f"{sizes[name]}-depth{depth}.hlog"
                    result = bench.run("--depth", depth, "--against-http", cluster.server, "--http-pid", cluster.server_pid,
                                       "--pairs", pairs, "--hdr-log", log, "--verify", f"http://{cluster.server}")
                    runs.append(pages.Run(name, depth, log, result))
        say("the stages of a 4 KiB read")
        parts, service = stages(programs, cluster, home, listings["4 KiB"], quick)
    say("drawing")
    pages.write(output, runs, parts, service)
    say(f"done: {output / 'index.html'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of the built programs")
    parser.add_argument("--output", type=Path, default=Path("build/latency-profile"), help="where the results go")
    parser.add_argument("--quick", action="store_true", help="a small matrix: whether it works, not how fast")
    args = parser.parse_args()
    process.exit_on_signals()
    say = process.Progress()
    try:
        venv.enter(REPOSITORY / "build" / "profile-venv", PACKAGES, say)
        args.output.mkdir(parents=True, exist_ok=True)
        measure(args.programs.resolve(), args.output.resolve(), args.quick, say)
    except weed.Unreachable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 77
    except process.LabError as error:
        print(f"profile failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
