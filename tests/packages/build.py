#!/usr/bin/env python3
"""Builds the Debian packages by scripts/package.sh, without debug information, into a directory that the tests that install them
are given. Options of CMake may follow: -DKELP_WERROR=ON.

Exit code: of scripts/package.sh, or 77: the tools to build them with are missing.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("dpkg-buildpackage", "dh", "lintian")


def main() -> None:
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        print(f"skipped: no packages can be built: missing: {', '.join(missing)}")
        sys.exit(77)
    script = ROOT / "scripts" / "package.sh"
    # Debug information takes longer to compress than all else.
    os.execve(script, [str(script), "--output", *sys.argv[1:]], os.environ | {"DEB_BUILD_OPTIONS": "noautodbgsym"})


if __name__ == "__main__":
    main()
