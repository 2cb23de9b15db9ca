#!/usr/bin/env python3
"""Every row of a fixture manifest, read with kelpctl and through the C ABI, against what SeaweedFS answered.

The rows' meaning is in tests/fixtures/README.md. Each folder of the fixtures gets a kelpd of its own, on a copy.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import daemon, process  # noqa: E402

Row = dict[str, Any]
# Exit codes of kelpctl in the words of kelp_status_name().
WORDS = {daemon.OK: "ok", daemon.BAD_FID: "bad-fid", daemon.NOT_FOUND: "not-found", daemon.WRONG_COOKIE: "wrong-cookie",
         daemon.EXPIRED: "expired", daemon.CORRUPT: "corrupt", daemon.USE_HTTP: "use-http",
         daemon.UNAVAILABLE: "unavailable", daemon.BROKEN_GZIP: "broken-gzip", daemon.RANGE: "range"}
WHOLE = 1 << 20  # no fixture is larger


@dataclass(frozen=True)
class Answer:
    """What a read ended with: a status in kelp_status_name()'s words, and the bytes."""

    status: str
    body: bytes
    path: str = "local"
    total: int | None = None


@dataclass(frozen=True)
class Expected:
    """Any of these statuses; with "ok" the body has this size and digest."""

    statuses: frozenset[str]
    size: int = 0
    sha256: str = ""

    def fits(self, answer: Answer) -> bool:
        if answer.status not in self.statuses:
            return False
        return answer.status != "ok" or (len(answer.body) == self.size and answer.path == "local"
                                         and hashlib.sha256(answer.body).hexdigest() == self.sha256)


def expected_of(row: Row) -> Expected:
    """What Kelp answers to a whole read, given what SeaweedFS answered."""
    status, kind = row["status"], row["kind"]
    if "expires_at_ns" in row and time.time_ns() >= row["expires_at_ns"]:
        return Expected(frozenset({"expired"}))
    if row.get("is_ec") or row.get("chunk_manifest"):
        return Expected(frozenset({"use-http"}))
    if kind.startswith("gzip-broken"):
        return Expected(frozenset({"broken-gzip"}))
    if status == 200:
        allowed = {"ok"}
        if 404 in (row.get("also_ok") or []):
            allowed |= {"not-found", "wrong-cookie", "expired"}
        return Expected(frozenset(allowed), row["size"], row["sha256"])
    if kind == "unknown-volume":
        return Expected(frozenset({"not-found", "unavailable"}))
    words = {400: "bad-fid", 404: "wrong-cookie" if kind.startswith("wrong-cookie") else "not-found", 500: "corrupt"}
    return Expected(frozenset({words[status]}))


def ranges_of(row: Row) -> Iterator[tuple[int, int, Expected]]:
    """(offset, length, what to expect). A range is cut at the end; one that starts beyond it is refused."""
    for part in row.get("ranges", []):
        if part["offset"] > row["size"]:
            yield part["offset"], part["size"], Expected(frozenset({"range"}))
        else:
            yield part["offset"], part["size"], Expected(frozenset({"ok"}), part["length"], part["sha256"])


class Abi:
    """The C program fixture_rows."""

    def __init__(self, program: Path, run_dir: Path) -> None:
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, run_dir], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def read(self, fid: str, offset: int = 0, length: int = WHOLE) -> Answer:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{fid} {offset} {length}\n".encode())
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        if len(words) != 4:
            raise process.LabError(f"fixture_rows ended over {fid}, exit code {self.process.wait(10)}")
        status, path, count, total = (word.decode() for word in words)
        return Answer(status, self.process.stdout.read(int(count)), path, int(total))

    def close(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Check:
    """Counts, and what did not fit."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def row(self, row: Row, way: str, read: Callable[..., Answer]) -> None:
        what = f"{way}: {row['kind']} {row['fid']}"
        expected = expected_of(row)
        answer = self._served(row, read)
        self._judge(what, expected, answer)
        if answer.status != "ok":
            return
        if answer.total not in (None, row["size"]):
            self.wrong.append(f"{what}: total {answer.total}, not {row['size']}")
        for offset, length, part in ranges_of(row):
            self.counts["ranges"] += 1
            got = read(row["fid"], offset, length)
            if not part.fits(got):
                self.wrong.append(f"{what} from {offset}, {length} bytes: {got.status} and {len(got.body)} bytes, "
                                  f"not {' or '.join(part.statuses)} and {part.size} bytes")

    def _served(self, row: Row, read: Callable[..., Answer]) -> Answer:
        """A volume that kelpd has found but not loaded yet answers "unavailable" for a moment."""
        give_up = time.monotonic() + 10
        while True:
            answer = read(row["fid"])
            if answer.status != "unavailable" or row["kind"] == "unknown-volume" or time.monotonic() > give_up:
                return answer
            time.sleep(0.05)

    def _judge(self, what: str, expected: Expected, answer: Answer) -> None:
        self.counts["reads of rows"] += 1
        if not expected.fits(answer):
            refused = answer.status != "ok" and "ok" in expected.statuses
            self.counts["refused that should not be" if refused else "wrong"] += 1
            self.wrong.append(f"{what}: {answer.status} and {len(answer.body)} bytes ({answer.path}), "
                              f"not {' or '.join(sorted(expected.statuses))} and {expected.size} bytes")
        elif answer.status == "ok":
            self.counts["identical"] += 1
        elif answer.status == "use-http":
            self.counts["use-HTTP"] += 1
        else:
            self.counts["expected errors"] += 1


def unpack(fixtures: Path, name: str, home: Path) -> Path:
    """A copy of one folder of the fixtures."""
    if name == "ec":
        subprocess.run(["tar", "--zstd", "-xf", fixtures / "ec.tar.zst", "-C", home], check=True)
    else:
        shutil.copytree(fixtures / name, home / name)
    return home / name


def check_set(programs: Path, volumes: Path, rows: list[Row], home: Path, check: Check, flags: list[str]) -> None:
    with daemon.Daemon(programs, home, volumes, flags=flags) as kelpd:
        def kelpctl_read(fid: str, offset: int | None = None, length: int | None = None) -> Answer:
            options = [] if offset is None else ["--offset", str(offset), "--size", str(length)]
            code, body = kelpd.read(fid, *options)
            return Answer(WORDS.get(code, f"exit code {code}"), body)

        abi = Abi(programs / "fixture_rows", kelpd.run_dir)
        try:
            for row in rows:
                check.counts["rows"] += 1
                check.row(row, "kelpctl", kelpctl_read)
                check.row(row, "C ABI", abi.read)
        finally:
            code = abi.close()
        if code != 0:
            check.wrong.append(f"fixture_rows ended with exit code {code}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and fixture_rows")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--workers", type=int, default=0, help="so many, each on a CPU of its own; 0: one, not pinned")
    args = parser.parse_args()
    process.exit_on_signals()
    cpus = sorted(os.sched_getaffinity(0))[:args.workers]
    if len(cpus) < args.workers:
        print(f"skipped: {args.workers} CPUs are needed, and there are {len(cpus)}")
        return 77
    flags = ["--cpus", ",".join(map(str, cpus))] if cpus else []
    manifest = [json.loads(line) for line in (args.fixtures / "manifest.jsonl").read_text().splitlines()]
    check = Check()
    try:
        for name in ("vs", "broken", "ec"):
            with process.scratch_dir("kelp-rows-") as home:
                rows = [row for row in manifest if row["set"] == name]
                check_set(args.programs, unpack(args.fixtures, name, home), rows, home, check, flags)
    except process.LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    for one in check.wrong:
        print(f"  WRONG: {one}")
    names = ["rows", "reads of rows", "identical", "expected errors", "use-HTTP", "ranges", "refused that should not be", "wrong"]
    print(f"{args.fixtures.name}: " + ", ".join(f"{name} {check.counts[name]}" for name in names))
    return 1 if check.wrong or check.counts["rows"] != len(manifest) else 0


if __name__ == "__main__":
    sys.exit(main())
