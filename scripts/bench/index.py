#!/usr/bin/env python3
"""Measures what index.sh says. Run index.sh."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, figures, process  # noqa: E402


def compare(programs: Path, *words: str | Path) -> dict[str, Any]:
    argv = [programs / "kelp-index-compare", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise process.LabError(f"kelp-index-compare {words[0]} ended with exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    programs = args.programs
    width = ("--width", str(args.width))
    loaded: list[dict[str, Any]] = []
    grown: list[dict[str, Any]] = []
    with process.scratch_dir("kelp-bench-") as home:
        say(f"writing a volume of {args.needles} needles")
        compare(programs, "volume", "--dir", home, "--needles", str(args.needles), "--overwrites", str(args.overwrites),
                "--deletes", str(args.deletes), *width)
        index = home / "1.idx"
        for turn in range(args.turns):
            say(f"turn {turn + 1} of {args.turns}: loading, looking up, growing")
            loaded.append(compare(programs, "load", "--idx", index, "--rounds", str(args.rounds), *width))
            grown.append(compare(programs, "grow", "--idx", index, *width))

    def each(documents: list[dict[str, Any]], key: str) -> list[float]:
        return [document[key] for document in documents]

    def pooled(key: str) -> list[float]:
        return [value for document in loaded for value in document[key]]

    def of(name: str, samples: list[float], unit: str, must: float | None = None,
           better: str = "low") -> figures.Figure:
        return figures.of_samples(name, samples, better, unit, must)

    return [
        of("memory per needle, loaded", each(loaded, "bytes_per_needle"), "bytes", 24),
        of("memory per needle, loading, at most", each(loaded, "loading_bytes_per_needle"), "bytes", 32),
        of("memory per needle, growing, at most", each(grown, "peak_bytes_per_needle"), "bytes", 32),
        of("memory per needle, reloading beside the old index", each(loaded, "reload_bytes_per_needle"), "bytes"),
        of("load / reserved absl::flat_hash_map", pooled("load_ratio"), "", 0.7),
        of("rows loaded", [rate / 1e6 for rate in pooled("rows_per_s")], "million/s", 10, "high"),
        of("rows into absl", [rate / 1e6 for rate in pooled("absl_rows_per_s")], "million/s", None, "high"),
        of("look-up / two dependent loads", pooled("find_ratio"), "", 1.5),
        of("look-up", pooled("find_ns"), "ns"),
        of("two dependent loads", pooled("two_loads_ns"), "ns"),
        of("longest row while growing", each(grown, "longest_row_us"), "us"),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--needles", type=int, default=10_000_000)
    parser.add_argument("--overwrites", type=float, default=0.05, help="share of needles stored twice")
    parser.add_argument("--deletes", type=float, default=0.05, help="share of needles deleted again")
    parser.add_argument("--width", type=int, choices=(4, 5), default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="loads of each map in a turn")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
