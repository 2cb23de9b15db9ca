"""Programs that measure: kelp-bench, and those that write figures."""

from __future__ import annotations

import json
import subprocess
import tempfile
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


def system_calls(argv: Sequence[object], home: Path) -> list[int]:
    """Of each thread of a program that ends by itself, the first one first, as strace sees them."""
    with tempfile.TemporaryDirectory(dir=home) as logs:
        output_of(["strace", "-ff", "-o", Path(logs, "thread"), *argv])
        threads = sorted(Path(logs).iterdir(), key=lambda log: int(log.suffix[1:]))
        # Besides calls there are lines on signals and on the end.
        return [sum(not line.startswith(("---", "+++")) for line in log.read_text().splitlines()) for log in threads]


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
