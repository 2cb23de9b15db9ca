"""The figures of a benchmark: one table for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`value` is the median; `low` and `high` are the quartiles of what it is the median of."""

    name: str
    value: float
    low: float
    high: float
    must: float | None  # None: told for information
    better: str         # "low" or "high"
    unit: str

    def verdict(self) -> str:
        if self.must is None:
            return ""
        met = self.value <= self.must if self.better == "low" else self.value >= self.must
        return "met" if met else "NOT MET"


def of_samples(name: str, samples: Sequence[float], better: str, unit: str, must: float | None = None) -> Figure:
    low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    return Figure(name, middle, low, high, must, better, unit)


def machine() -> dict[str, Any]:
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def table(figures: Sequence[Figure]) -> str:
    rows = [("figure", "median", "spread (quartiles)", "must", "")]
    for figure in figures:
        must = "" if figure.must is None else ("<= " if figure.better == "low" else ">= ") + f"{figure.must:g}"
        rows.append((figure.name, f"{figure.value:.2f} {figure.unit}", f"{figure.low:.2f} - {figure.high:.2f}", must,
                     figure.verdict()))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) if i in (0, 4) else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)


def document(figures: Sequence[Figure]) -> str:
    return json.dumps({"machine": machine(), "figures": [asdict(figure) for figure in figures]}, indent=2)
