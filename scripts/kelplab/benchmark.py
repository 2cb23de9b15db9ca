"""What the benchmarks have in common: their command line, their progress, their table or JSON document."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from kelplab import figures, process, weed

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures"
SKIPPED = 77

Measure = Callable[[argparse.Namespace, process.Progress], list[figures.Figure]]


def main(about: str | None, measure: Measure,
         add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None) -> int:
    """Runs `measure` with the options; exit code 0 when it was measured, whatever the figures say, 77 where weed cannot be had."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True,
                        help="directory of the built programs")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    add_options(parser)
    args = parser.parse_args()
    process.exit_on_signals()
    try:
        measured = measure(args, process.Progress())
    except weed.Unreachable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return SKIPPED
    except process.LabError as error:
        print(f"{Path(sys.argv[0]).stem} benchmark failed: {error}", file=sys.stderr)
        return 1
    print(figures.document(measured) if args.json else figures.table(measured))
    return 0
