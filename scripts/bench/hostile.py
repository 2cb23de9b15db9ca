#!/usr/bin/env python3
"""Measures what hostile.sh says. Run hostile.sh."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, process  # noqa: E402

NEEDLE_BYTES = 4097
VOLUME = 1
# A worker that sleeps would be woken for some reads and not for others, depending on what came before them.
CONFIG = '[worker]\npolling = "poll"\n[daemon]\nlog_level = "error"\n'


def needle(fixtures: Path) -> str:
    for line in (fixtures / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["set"] == "vs" and row["volume"] == VOLUME and row.get("size") == NEEDLE_BYTES and row["status"] == 200:
            return row["fid"]
    raise process.LabError(f"the fixtures have no needle of {NEEDLE_BYTES} bytes in volume {VOLUME}")


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs, pairs = args.programs, args.pairs
    fixtures = benchmark.FIXTURES / "v5b"
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for the worker, one for the clients")
    with process.scratch_dir("kelp-bench-") as home:
        volumes = home / "volumes"
        shutil.copytree(fixtures / "vs", volumes)
        config = home / "kelpd.toml"
        config.write_text(CONFIG)
        with daemon.Daemon(programs, home, volumes, flags=["--config", str(config), "--cpus", str(cpus[0])]) as kelpd:
            kelpd.wait_serving([VOLUME])
            say(f"ten ways to misbehave, {pairs} pairs of slices of 500 reads each")
            document = home / "hostile.json"
            done = subprocess.run(["taskset", "--cpu-list", str(cpus[1]), programs / "kelp-hostile-compare", "--run-dir",
                                   kelpd.run_dir, "--fid", needle(fixtures), "--pairs", str(pairs), "--json", document],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise process.LabError(f"kelp-hostile-compare ended with exit code {done.returncode}: {done.stderr}")
            return [figures.Figure(**entry) for entry in json.loads(document.read_text())["figures"]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=30, help="pairs of slices for each behaviour")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
