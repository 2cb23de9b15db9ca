"""Programs that measure: kelp-bench, and those that write figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import figures
from .process import LabError


def output_of(argv: Sequence[object]) -> str:
    """stdout of a program that ends by itself; any exit code but 0 is a LabError."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)} ended with exit code {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def figures_of(argv: Sequence[object], home: Path) -> list[figures.Figure]:
    """The figures a program of tests/bench writes with --json."""
    document = home / "figures.json"
    output_of([*argv, "--json", document])
    return [figures.Figure(**entry) for entry in json.loads(document.read_text())["figures"]]


def system_calls(argv: Sequence[object], home: Path) -> int:
    """Of all threads of a program that ends by itself, as strace counts them."""
    log = home / "strace"
    output_of(["strace", "-f", "-c", "-o", log, *argv])
    total = re.search(r"^\s*100\.00\s+\S+\s+\S*\s+(\d+)\s.*total$", log.read_text(), re.MULTILINE)
    if not total:
        raise LabError(f"strace's output is not understood:\n{log.read_text()}")
    return int(total[1])


@dataclass(frozen=True)
class Bench:
    """kelp-bench on one listing of file ids."""

    programs: Path
    run_dir: Path
    fids: Path
    prefix: Sequence[str] = ()  # a command that runs another one, like taskset
    server: str = ""            # the volume server's HTTP, host:port
    server_pid: int = 0

    def run(self, *options: object) -> dict[str, Any]:
        """Its JSON document. Reads that fail, or bring wrong bytes, are a LabError."""
        return json.loads(output_of([*self.prefix, self.programs / "kelp-bench", "--json", "--quiet", "--run-dir",
                                     self.run_dir, "--fids", self.fids, *options]))
