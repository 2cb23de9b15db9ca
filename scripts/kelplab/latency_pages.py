"""Pictures, CSV and one page of latency profiles. Needs matplotlib and hdrhistogram: scripts/profile_latency.py brings them."""

from __future__ import annotations

import base64
import csv
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from hdrh.histogram import HdrHistogram  # noqa: E402

COLOURS = {"kelp": ("#9ecae1", "#4292c6", "#08306b"), "http": ("#fdae6b", "#e6550d", "#7f2704")}
NAMES = {"kelp": "Kelp", "http": "HTTP keep-alive"}
PERCENTILES = (50, 90, 99, 99.9, 99.99, 100)


@dataclass(frozen=True)
class Run:
    """One cell of the matrix."""

    size: str
    depth: int
    log: Path
    result: dict[str, Any]  # kelp-bench's document

    def histogram(self, tag: str) -> HdrHistogram:
        """All intervals of that side."""
        total = HdrHistogram(1, (1 << 42) - 1, 2)
        for line in self.log.read_text().splitlines():
            if line.startswith(f"Tag={tag},"):
                total.decode_and_add(line.rsplit(",", 1)[1])
        return total


def curve(histogram: HdrHistogram) -> tuple[list[float], list[float]]:
    """1 / (1 - quantile), and microseconds there: up to what the number of values can tell."""
    nines, values = [], []
    last = max(2.0, float(histogram.get_total_count()))
    step = 1.0
    while step <= last:
        nines.append(step)
        values.append(histogram.get_value_at_percentile(100 * (1 - 1 / step)) / 1000)
        step *= 1.12
    return nines, values


def draw_size(size: str, runs: Sequence[Run], floor: Mapping[str, Any] | None, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9.5, 5.6), dpi=120)
    for tag in ("kelp", "http"):
        for place, run in enumerate(runs):
            nines, values = curve(run.histogram(tag))
            axes.plot(nines, values, color=COLOURS[tag][place % 3], linewidth=2, label=f"{NAMES[tag]}, depth {run.depth}")
    if floor is not None and floor["size"] == size:
        axes.axhline(floor["p50_us"], color="#31a354", linestyle="--", linewidth=1.5,
                     label=f"{floor['name']}, p50 ({floor['p50_us']:.2f} µs)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000, 10000, 100000, 1000000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %",
                                                                    "99.9999 %"])
    axes.set_xlim(1, max(run.histogram("kelp").get_total_count() for run in runs))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} µs" if value < 1000 else f"{value / 1000:g} ms")
    axes.set_xlabel("percentile of reads")
    axes.set_ylabel("latency of a read")
    axes.set_title(f"{size} reads, page cache warm: latency by percentile")
    axes.grid(True, color="#dddddd")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def colour_of(stage: str) -> str:
    if "whole read" not in stage:
        return "#9ecae1"
    return COLOURS["kelp"][2] if stage.startswith("Kelp") else COLOURS["http"][1] if "HTTP" in stage else "#31a354"


def draw_stages(rows: Sequence[tuple[str, float]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9.5, 0.6 * len(rows)), dpi=120)
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    bars = axes.barh(names, values, color=[colour_of(name) for name in names])
    axes.bar_label(bars, labels=[f"{value:.2f} µs" if value < 100 else f"{value:.0f} µs" for value in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} µs")
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set_title("What a 4 KiB read consists of: medians, one request at a time")
    axes.grid(True, axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def percentile_rows(runs: Sequence[Run]) -> list[list[object]]:
    rows: list[list[object]] = []
    for run in runs:
        for tag in ("kelp", "http"):
            histogram = run.histogram(tag)
            rows.append([run.size, run.depth, NAMES[tag], histogram.get_total_count(), round(run.result[tag]["reads_per_s"]),
                         *(round(histogram.get_value_at_percentile(p) / 1000, 3) for p in PERCENTILES)])
    return rows


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def picture(path: Path) -> str:
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def write(output: Path) -> None:
    """latency.csv, stages.csv, a PNG per size, stages.png and index.html, of the profile.json that lies there."""
    measured = json.loads((output / "profile.json").read_text())
    runs = [Run(run["size"], run["depth"], output / run["log"], run["result"]) for run in measured["runs"]]
    pictures = []
    for size in dict.fromkeys(run.size for run in runs):
        path = output / f"latency-{size.replace(' ', '')}.png"
        draw_size(size, [run for run in runs if run.size == size], measured["floor"], path)
        pictures.append(path)
    rows = [(what, took) for what, took in measured["stages"]]
    draw_stages(rows, output / "stages.png")
    head = ["size", "depth", "path", "reads", "reads/s", *(f"p{p:g} (us)" if p < 100 else "max (us)" for p in PERCENTILES)]
    table = percentile_rows(runs)
    write_csv(output / "latency.csv", head, table)
    write_csv(output / "stages.csv", ["stage", "p50 (us)"], rows)
    about = measured["machine"]
    (output / "index.html").write_text(f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Kelp: latency profile</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child, td:nth-child(3), th:nth-child(3) {{ text-align: left }}
img {{ max-width: 100%; margin: 1em 0 }}
</style>
<h1>Kelp: latency profile of {html.escape(measured["title"])}</h1>
<p>{html.escape(about["cpu"])}, {about["cpus"]} CPUs, Linux {html.escape(about["kernel"])}. One thread; Kelp and HTTP keep-alive took
turns in slices of 200 ms; every byte was compared with weed's own answer. A closed loop: a read begins when another has ended.
Percentiles are of all slices together; the raw logs (*.hlog) lie beside this page.</p>
<h2>Latency by percentile</h2>
{"".join(picture(path) for path in pictures)}
<h2>What a read consists of</h2>
{picture(output / "stages.png")}
<p>Medians, each measured by itself; what a worker takes for a request is told by the daemon's own clock.</p>
<h2>Numbers</h2>
{html_table(head, table)}
</html>
""")
