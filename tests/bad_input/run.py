#!/usr/bin/env python3
"""What kelpd and kelpctl promise about bad input, each against a fresh kelpd. Prints a line per promise.

Every file beside this one holds the promises of one kind. A promise is a function, and its name a sentence.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import damage  # noqa: F401
import deaths  # noqa: F401
import file_ids  # noqa: F401
import files  # noqa: F401
import limits  # noqa: F401
import run_dirs  # noqa: F401
import signals  # noqa: F401
from scene import PROMISES, Broken, Promise, Scene, Skipped, process

SEED = 20260131


def check(promise: Promise, args: argparse.Namespace) -> bool:
    """Whether it was kept, or could not be checked."""
    started = time.monotonic()
    with process.scratch_dir("kelp-bad-") as home:
        try:
            promise(Scene(args.programs, args.fixtures, home, args.seed))
            word, why = "ok", ""
        except Skipped as error:
            word, why = "skip", f": {error}"
        except (Broken, process.LabError) as error:
            word, why = "FAIL", f": {error}"
    print(f"{word:4} {promise.__name__.replace('_', ' ')} ({time.monotonic() - started:.1f} s){why}", flush=True)
    return word != "FAIL"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and fixture_rows")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random input")
    parser.add_argument("--only", default="", help="promises whose names hold this text")
    parser.add_argument("groups", nargs="*", help="kinds of promises; all if none is named")
    args = parser.parse_args()
    if unknown := set(args.groups) - set(PROMISES):
        parser.error(f"no such kind: {', '.join(unknown)}; there are {', '.join(PROMISES)}")
    process.exit_on_signals()
    wanted = [promise for group in args.groups or PROMISES for promise in PROMISES[group]
              if args.only in promise.__name__.replace("_", " ")]
    kept = [check(promise, args) for promise in wanted]
    print(f"{sum(kept)} of {len(kept)} promises kept, seed {args.seed}")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
