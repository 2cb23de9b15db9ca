#!/usr/bin/env python3
"""Measures what read.sh says. Run read.sh.

Two comparisons, each in turns within this run: kelp-read-compare alternates slices of HTTP and of ring reads itself;
then slices of its HTTP client alone alternate with slices of wrk, both on one object. kelpd's worker has a CPU of its own;
the clients, wrk included, run on the others.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, process, weed  # noqa: E402

LABEL = "4 KiB"
OBJECTS = 64
WRK_ROUNDS = 9


WORKER_FLAGS, CLIENT_PREFIX = process.worker_and_client_cpus()


def run(argv: list[str | Path]) -> str:
    done = subprocess.run([*CLIENT_PREFIX, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise process.LabError(f"{Path(argv[0]).name} ended with exit code {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def compare(programs: Path, cluster: weed.Cluster, home: Path, fids: list[str],
            *options: str | Path) -> dict[str, figures.Figure]:
    """kelp-read-compare on these objects; its figures by name."""
    document, listing = home / "compare.json", home / "fids"
    listing.write_text("".join(f"{LABEL}\t{fid}\n" for fid in fids))
    run([programs / "kelp-read-compare", "--server", cluster.server, "--fids", listing, "--json", document, *options])
    return {entry["name"]: figures.Figure(**entry) for entry in json.loads(document.read_text())["figures"]}


def wrk_p50_us(cluster: weed.Cluster, fid: str) -> float:
    """Median latency of one connection of wrk over one second. Without a script: that is wrk at its fastest."""
    output = run(["wrk", "-c1", "-t1", "-d1s", "--latency", f"http://{cluster.server}/{fid}"])
    found = re.search(r"^\s*50%\s+([\d.]+)(us|ms)", output, re.MULTILINE)
    if not found or "Non-2xx" in output:
        raise process.LabError(f"wrk's output is not understood:\n{output}")
    return float(found[1]) * (1000 if found[2] == "ms" else 1)


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs = args.programs
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with process.scratch_dir("kelp-bench-") as home, weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        fids = cluster.assign(OBJECTS)
        for fid in fids:
            cluster.put(fid, random.randbytes(4096))
        with daemon.Daemon(programs, home, cluster.volume_dir, flags=WORKER_FLAGS) as kelpd:
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            say("Kelp and weed's HTTP in turns: 41 pairs of slices of 200 ms")
            reads = compare(programs, cluster, home, fids, "--run-dir", kelpd.run_dir, "--slice-ms", "200", "--pairs", "41")
        say(f"the HTTP client and wrk in turns: {WRK_ROUNDS} pairs of slices of 1 s")
        ours, wrks = [], []
        for _ in range(WRK_ROUNDS):
            alone = compare(programs, cluster, home, fids[:1], "--http-only", "--slice-ms", "1000", "--pairs", "1")
            ours.append(alone[f"weed HTTP latency, {LABEL}"].value)
            wrks.append(wrk_p50_us(cluster, fids[0]))
    ratio = reads[f"weed HTTP p50 / Kelp p50, {LABEL}"]
    return [
        reads[f"Kelp latency, {LABEL}"],
        reads[f"weed HTTP latency, {LABEL}"],
        figures.Figure(**{**vars(ratio), "must": 10}),
        figures.of_samples("wrk -c1 p50", wrks, "low", "us"),
        figures.of_samples("HTTP client p50 / wrk p50", [a / b for a, b in zip(ours, wrks)], "low", "x", must=1.1),
    ]


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure))
