"""What the tests of the gateway share: objects, programs that read them through the ring, and what is judged of the reads."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import daemon, process  # noqa: E402

TIMEOUT_MS = 5000
# How much later than its deadline a read may be answered before it counts as late. Generous: this machine has other work.
GRACE_MS = 1000


@dataclass(frozen=True)
class Object:
    fid: str
    body: bytes
    what: str = ""

    @property
    def vid(self) -> int:
        return int(self.fid.partition(",")[0])


class Read(NamedTuple):
    submitted_ns: int
    done_ns: int
    object: int  # index into the objects that are read
    status: str
    path: str
    right: bool

    @property
    def ms(self) -> float:
        return (self.done_ns - self.submitted_ns) / 1e6


@dataclass(frozen=True)
class Verdict:
    """What may not be: bytes that are wrong, answers that are late, reads that fail."""

    reads: int
    wrong: int
    late: int
    failed: dict[str, int]  # by status
    failed_at_s: dict[str, list[float]]  # the first and the last of each, since the scene's first read
    paths: dict[str, int]
    ms: dict[str, list[float]]  # by path: p50, p99, max

    def complaints(self, scene: str) -> list[str]:
        found = []
        if not self.reads:
            found.append(f"{scene}: nothing was read")
        if self.wrong:
            found.append(f"{scene}: {self.wrong} of {self.reads} reads had wrong bytes")
        if self.late:
            found.append(f"{scene}: {self.late} of {self.reads} reads were answered after their deadline")
        if self.failed:
            found.append(f"{scene}: of {self.reads} reads ended otherwise than ok: {self.failed}, at {self.failed_at_s} s")
        return found


def judge(reads: Sequence[Read], timeout_ms: int = TIMEOUT_MS) -> Verdict:
    times: dict[str, list[float]] = collections.defaultdict(list)
    failures: dict[str, list[float]] = collections.defaultdict(list)
    for read in reads:
        if read.status == "ok":
            times[read.path].append(read.ms)
        else:
            failures[read.status].append((read.done_ns - reads[0].submitted_ns) / 1e9)
    ms = {}
    for path, values in times.items():
        values.sort()
        ms[path] = [round(values[int(len(values) * share)], 3) for share in (0.5, 0.99)] + [round(values[-1], 3)]
    return Verdict(len(reads), sum(not read.right for read in reads), sum(read.ms > timeout_ms + GRACE_MS for read in reads),
                   dict(collections.Counter(read.status for read in reads if read.status != "ok")),
                   {status: [round(at, 2) for at in (min(when), max(when))] for status, when in failures.items()},
                   dict(collections.Counter(read.path for read in reads if read.status == "ok")), ms)


class Reader:
    """test_gateway_reader, with the objects' bodies as files."""

    def __init__(self, programs: Path, home: Path) -> None:
        self.program = programs / "test_gateway_reader"
        self.home = home / "expected"
        self.home.mkdir(parents=True, exist_ok=True)
        self.runs = itertools.count(1)  # several threads may read at once

    def listing(self, objects: Sequence[Object]) -> Path:
        for one in objects:
            file = self.home / one.fid
            if not file.exists():
                file.write_bytes(one.body)
        listing = self.home / f"listing-{next(self.runs)}"
        listing.write_text("".join(f"{one.fid}\t{self.home / one.fid}\n" for one in objects))
        return listing

    def once(self, kelpd: daemon.Daemon, objects: Sequence[Object], timeout_ms: int = TIMEOUT_MS) -> list[dict[str, Any]]:
        """Each object once; what the ring answered, in order."""
        done = subprocess.run([self.program, kelpd.run_dir, self.listing(objects), str(timeout_ms)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60 + len(objects) * timeout_ms / 1000, check=False)
        if done.returncode != 0:
            raise process.LabError(f"test_gateway_reader ended with {done.returncode}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextlib.contextmanager
    def steadily(self, kelpd: daemon.Daemon, objects: Sequence[Object], rate: int,
                 timeout_ms: int = TIMEOUT_MS) -> Iterator[Steady]:
        listing = self.listing(objects)
        steady = Steady([self.program, kelpd.run_dir, listing, str(timeout_ms), listing.with_suffix(".log"), str(rate)],
                        listing.with_suffix(".log"))
        try:
            yield steady
        finally:
            steady.stop()


class Steady:
    """Reads that go on until stop()."""

    def __init__(self, argv: list[str | Path], log: Path) -> None:
        self.log = log
        log.touch()
        self.parsed: list[Read] = []
        self.parsed_bytes = 0
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, argv)], stdin=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def reads(self) -> list[Read]:
        """Those that have been logged. The log's last line may be half there yet."""
        with self.log.open("rb") as log:
            log.seek(self.parsed_bytes)
            more = log.read()
        more = more[:more.rfind(b"\n") + 1]
        self.parsed_bytes += len(more)
        for line in more.decode().splitlines():
            submitted, done, index, status, path, right = line.split()
            self.parsed.append(Read(int(submitted), int(done), int(index), status, path, right == "1"))
        return self.parsed

    def wait_reads(self, what: str, count: int = 1, *, since_ns: int = 0, path: str | None = None,
                   deadline_s: float = 30) -> Read:
        """The `count`-th read that was submitted at `since_ns` or later, is ok, and came by `path`."""
        give_up = time.monotonic() + deadline_s
        while True:
            fitting = [read for read in self.reads() if read.status == "ok" and read.submitted_ns >= since_ns
                       and path in (None, read.path)]
            if len(fitting) >= count:
                return fitting[count - 1]
            if self.process.poll() is not None:
                raise process.LabError(f"{what}: test_gateway_reader ended with {self.process.returncode}")
            if time.monotonic() > give_up:
                raise process.LabError(f"{what}: no such read within {deadline_s:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin
            self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
        assert self.process.stderr
        complaint = self.process.stderr.read()
        self.process.stderr.close()
        if self.process.returncode != 0:
            raise process.LabError(f"test_gateway_reader ended with {self.process.returncode}: {complaint}")


def gateway_flags(masters: Sequence[str], home: Path, **settings: object) -> list[str]:
    """Flags of a kelpd with a gateway; settings are keys of [gateway]."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    home.mkdir(parents=True, exist_ok=True)
    config = home / "kelpd.toml"
    config.write_text("[gateway]\n" + "\n".join(lines) + "\n")
    return ["--config", str(config)] + [word for master in masters for word in ("--master", master)]


def counters(kelpd: daemon.Daemon) -> dict[str, int]:
    """What the gateway has counted since its start."""
    return kelpd.stats()["gateway"]["counters"]
