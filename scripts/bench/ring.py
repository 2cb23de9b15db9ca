#!/usr/bin/env python3
"""Measures what ring.sh says. Run ring.sh."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, load, process  # noqa: E402

NO_OPS = 20_000
# What a call costs on the client's side and on the worker's; set-up is left out by counting only inside them.
CLIENT_CALLS = ("kelp_submit", "kelp_reap")
WORKER_CALLS = ("kelp::Worker::poll_once()",)


def output_of(argv: list[str | Path]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise process.LabError(f"{Path(argv[0]).name} ended with exit code {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout + done.stderr


def round_trips(programs: Path, run_dir: Path, home: Path, cpus: list[int]) -> list[figures.Figure]:
    document = home / "ring.json"
    output_of([programs / "kelp-ring-compare", "--run-dir", run_dir, "--worker-cpu", str(cpus[0]), "--client-cpu",
               str(cpus[1]), "--json", document])
    return [figures.Figure(**entry) for entry in json.loads(document.read_text())["figures"]]


def system_calls(programs: Path, run_dir: Path, home: Path, cpus: list[int], no_ops: int) -> int:
    return sum(load.system_calls([programs / "kelp-ring-compare", "--run-dir", run_dir, "--client-cpu", str(cpus[1]), "--count",
                                  str(no_ops)], home))


def instructions(programs: Path, home: Path, calls: tuple[str, ...], no_ops: int) -> int:
    text = output_of(["valgrind", "--tool=callgrind", f"--callgrind-out-file={home / 'callgrind.out'}",
                      *(f"--toggle-collect={call}" for call in calls), programs / "kelp-noop-harness", str(no_ops)])
    found = re.search(r"Collected\s*:\s*(\d+)", text)
    if not found:
        raise process.LabError(f"callgrind's output is not understood:\n{text}")
    return int(found[1])


def per_no_op(name: str, count: object, must: float, unit: str) -> figures.Figure:
    """Of the difference between 2 N and N: what is done once does not count."""
    value = (count(2 * NO_OPS) - count(NO_OPS)) / NO_OPS  # type: ignore[operator]
    return figures.Figure(name, value, value, value, must, "low", unit)


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs = args.programs
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for the worker, one for the client")
    with process.scratch_dir("kelp-bench-") as home:
        volumes = home / "volumes"
        volumes.mkdir()
        for file in (benchmark.FIXTURES / "v5b" / "vs").iterdir():
            (volumes / file.name).write_bytes(file.read_bytes())
        with daemon.Daemon(programs, home, volumes, flags=["--cpus", str(cpus[0])]) as kelpd:
            say("no-ops and ping-pong in turns: 1500 pairs of slices of 1 ms")
            measured = round_trips(programs, kelpd.run_dir, home, cpus)
            say("counting the system calls of a polling client")
            measured.append(per_no_op("client system calls per no-op",
                                      lambda n: system_calls(programs, kelpd.run_dir, home, cpus, n), 0.01, "calls"))
        say("counting instructions")
        measured.append(per_no_op("client instructions per no-op",
                                  lambda n: instructions(programs, home, CLIENT_CALLS, n), 300, "instr"))
        measured.append(per_no_op("worker instructions per no-op",
                                  lambda n: instructions(programs, home, WORKER_CALLS, n), 700, "instr"))
    return measured


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure))
