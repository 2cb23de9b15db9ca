#!/usr/bin/env python3
"""Runs the commands of docs/api.md as they are printed there, on a real needle of a real weed.

Exit code: 0 all of them did what the page says, 1 one did not, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
NEEDLE, COOKIE = 0x2A, 0x637037D6


def checks(body: bytes) -> list[Callable[[bytes], object]]:
    """What each command is to print, in the order of the page."""
    return [
        lambda out: out == body,
        lambda out: out == body,
        lambda out: out == body[:1024],
        lambda out: out == body[100:200],
        lambda out: out.startswith(b"HTTP/1.1 200") and f"Content-Length: {len(body)}".encode() in out,
        lambda out: json.loads(out)["data_size"] == len(body),
        lambda out: json.loads(out)["status"] == "healthy",
        lambda out: json.loads(out)["total_reads"] >= 3,
        lambda out: json.loads(out)["benchmark_results"]["successful_ops"] == 100,
        lambda out: "error" in json.loads(out),
        lambda out: out == body[:100],
        lambda out: json.loads(out)["version"],
        lambda out: json.loads(out)["success"] is True,
    ]


def test(programs: Path, binary: Path, home: Path) -> tuple[dict[str, Any], Sequence[str]]:
    broken = []
    commands = re.findall(r"^    (curl .*)$", PAGE.read_text(), flags=re.MULTILINE)
    with weed.Cluster(binary, home / "weed") as cluster:
        cluster.grow(1)
        vid = cluster.volume_files()[0].vid
        fid = f"{vid},{NEEDLE:02x}{COOKIE:08x}"
        body = random.randbytes(5000)
        cluster.put(fid, body)
        address = f"127.0.0.1:{process.free_ports(1)[0]}"
        expected = checks(body)
        if len(commands) != len(expected):
            return {}, [f"docs/api.md has {len(commands)} commands, and the test knows {len(expected)}"]
        with daemon.Daemon(programs, home, None, volume_servers={cluster.server: [cluster.volume_dir]},
                           flags=["--sidecar", address]) as kelpd:
            kelpd.wait_serving([vid])
            for printed, right in zip(commands, expected):
                command = printed
                for word, value in (("RUN_DIR", str(kelpd.run_dir)), ("ADDRESS", address), ("FID", fid), ("VOLUME", str(vid)), ("NEEDLE", str(NEEDLE)),
                                    ("COOKIE", str(COOKIE))):
                    command = command.replace(word, value)
                out = subprocess.run(shlex.split(command), capture_output=True, timeout=20, check=False).stdout
                if not right(out):
                    broken.append(f"{printed}\n  printed {out[:300]!r}")
    return {"commands": len(commands)}, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--weed", default=weed.DEFAULT_VERSION)
    args = parser.parse_args()
    return verdict.run("api", args.weed, lambda binary, home, say: test(args.programs, binary, home))


if __name__ == "__main__":
    sys.exit(main())
