"""A kelpd that is ended, killed or stopped while somebody reads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from scene import Scene, daemon, expect, health, is_alive, killed_at_the_end, plain_row, promise, reads, wait_for

READERS = 3
REQUESTS = 200_000  # more than any of them gets answered
SOON_S = 4.0
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class Flood:
    """A client that reads one needle as fast as it can, and checks every answer."""

    def __init__(self, scene: Scene, kelpd: daemon.Daemon, row: dict[str, Any]) -> None:
        self.row = row
        self.right = 0
        self.wrong: list[str] = []
        self.last = ""
        self.program = subprocess.Popen([*DIES_WITH_US, scene.programs / "fixture_rows", kelpd.run_dir],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.program.stdin and self.program.stdout
        self.writer = threading.Thread(target=self._ask, args=(self.program.stdin,), daemon=True)
        self.reader = threading.Thread(target=self._take, args=(self.program.stdout,), daemon=True)
        self.writer.start()
        self.reader.start()

    def _ask(self, requests: BinaryIO) -> None:
        line = f"{self.row['fid']} 0 {1 << 20}\n".encode()
        with contextlib.suppress(BrokenPipeError), requests:
            for _ in range(REQUESTS):
                requests.write(line)

    def _take(self, answers: BinaryIO) -> None:
        while words := answers.readline().split():
            body = answers.read(int(words[2]))
            self.last = words[0].decode()
            if self.last != "ok":
                return  # what follows is the same, as fast as it can be asked
            if hashlib.sha256(body).hexdigest() != self.row["sha256"]:
                self.wrong.append(f"{len(body)} other bytes")
            self.right += 1

    def end(self) -> None:
        self.reader.join(10)
        self.program.kill()
        self.program.wait()
        self.writer.join(10)
        assert self.program.stdout
        self.program.stdout.close()


@promise("signals")
def sigterm_drains_and_ends_while_clients_read(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        floods = [Flood(scene, kelpd, row) for _ in range(READERS)]
        wait_for("reads in flight", lambda: all(flood.right > 20 for flood in floods), kelpd)
        started = time.monotonic()
        code = kelpd.child.stop()
        took = time.monotonic() - started
        for flood in floods:
            flood.end()
        expect(code == 0 and took < SOON_S, f"kelpd ended with {code} after {took:.1f} s")
        for flood in floods:
            expect(not flood.wrong, f"a reader got {flood.wrong}")
            expect(flood.last in ("disconnected", "unavailable"), f"a reader's last answer is {flood.last}")


@contextlib.contextmanager
def attached_reader(scene: Scene, kelpd: daemon.Daemon, row: dict[str, Any],
                    *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A kelpctl that is attached and sends its read when somebody opens the pipe it writes to."""
    pipe = scene.home / "pipe"
    os.mkfifo(pipe)
    wait_for("earlier clients to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
    reader = subprocess.Popen([*DIES_WITH_US, kelpd.kelpctl_path, "--run-dir", kelpd.run_dir, "read", row["fid"], "-o", pipe,
                               *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for("a client", lambda: health(kelpd)["clients"] == 1, kelpd)
        yield reader
    finally:
        reader.kill()
        reader.wait()
        assert reader.stderr
        reader.stderr.close()
        pipe.unlink()


def ends_with(scene: Scene, reader: subprocess.Popen[bytes], code: int) -> None:
    started = time.monotonic()
    with (scene.home / "pipe").open("rb") as pipe:
        body = pipe.read()
        reader.wait(20)
    took = time.monotonic() - started
    assert reader.stderr
    expect(reader.returncode == code, f"exit code {reader.returncode}, not {code}: {reader.stderr.read()!r}")
    expect(not body, f"{len(body)} bytes were written")
    expect(took < SOON_S, f"only after {took:.1f} s")


@promise("signals")
def a_read_from_a_kelpd_that_was_killed_ends_soon(scene: Scene) -> None:
    row = plain_row(scene)
    with contextlib.ExitStack() as stack:
        with killed_at_the_end(scene.kelpd(scene.volumes())) as kelpd:
            reader = stack.enter_context(attached_reader(scene, kelpd, row))
        ends_with(scene, reader, daemon.NO_DAEMON)


@promise("signals")
def a_kelpd_killed_among_reads_gives_no_other_bytes(scene: Scene) -> None:
    row = plain_row(scene)
    with killed_at_the_end(scene.kelpd(scene.volumes())) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        floods = [Flood(scene, kelpd, row) for _ in range(READERS)]
        wait_for("reads in flight", lambda: all(flood.right > 20 for flood in floods), kelpd)
    for flood in floods:
        flood.end()
        expect(not flood.wrong and flood.last == "disconnected", f"a reader's last answer is {flood.last}, {flood.wrong}")


def halt(kelpd: daemon.Daemon) -> None:
    """SIGSTOP; returns when every thread has stopped, which takes a moment."""
    os.kill(kelpd.child.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{kelpd.child.pid}/task")
    wait_for("every thread to stop",
             lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in tasks.glob("*/stat")), kelpd)


@promise("signals")
def a_read_from_a_kelpd_that_stands_still_times_out_and_later_ones_work(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        with attached_reader(scene, kelpd, row, "--timeout", "300") as reader:
            halt(kelpd)
            try:
                ends_with(scene, reader, daemon.TIMEOUT)
            finally:
                os.kill(kelpd.child.pid, signal.SIGCONT)
        wait_for("a needle to read again", lambda: reads(kelpd, row), kelpd)
        is_alive(kelpd)


@promise("signals")
def a_client_that_comes_while_kelpd_stands_still_is_told(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        halt(kelpd)
        try:
            for words, code in ((["read", row["fid"]], daemon.NO_DAEMON), (["health"], daemon.TIMEOUT)):
                done = kelpd.kelpctl(*words, timeout_s=15)
                expect(done.returncode == code and not done.stdout, f"{words[0]}: exit code {done.returncode}, not {code}")
                expect(b"answer" in done.stderr, f"{words[0]} says {done.stderr!r}")
        finally:
            os.kill(kelpd.child.pid, signal.SIGCONT)
        wait_for("a needle to read again", lambda: reads(kelpd, row), kelpd)
