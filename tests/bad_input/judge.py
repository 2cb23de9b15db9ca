"""Runs promises, each on a scene of its own, and prints a line per promise."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from scene import PROMISES, Broken, Promise, Scene, Skipped, process

SEED = 20260131


def check(promise: Promise, args: argparse.Namespace) -> bool:
    """Whether it was kept, or could not be checked."""
    started = time.monotonic()
    with process.scratch_dir("kelp-bad-") as home:
        try:
            promise(Scene(args.programs, args.fixtures, home, args.seed, args.full))
            word, why = "ok", ""
        except Skipped as error:
            word, why = "skip", f": {error}"
        except (Broken, process.LabError) as error:
            word, why = "FAIL", f": {error}"
        except Exception as error:  # the promises after this one are judged all the same
            word, why = "FAIL", f": {type(error).__name__}: {error}"
    print(f"{word:4} {promise.__name__.replace('_', ' ')} ({time.monotonic() - started:.1f} s){why}", flush=True)
    return word != "FAIL"


def main(description: str | None) -> int:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and fixture_rows")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random input")
    parser.add_argument("--full", action="store_true", help="peers: ten thousand strangers, a thousand connections")
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
