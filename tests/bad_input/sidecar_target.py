"""What a promise about the HTTP read API is checked on: a kelpd that has it, a client with manners, and what that one feels of
others. See docs/api.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import random
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wire
from scene import Scene, daemon, expect, is_alive, plain_row, process, wait_for

LARGE = 6 << 20


@dataclass(frozen=True)
class Target:
    kelpd: daemon.Daemon
    port: int
    row: dict[str, Any]

    def connect(self, timeout_s: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def say(self, raw: bytes, timeout_s: float = 20) -> list[tuple[int, dict[str, str], bytes]]:
        """The answers to these bytes, until the server closes; a connection that stays open is closed by half first."""
        with self.connect(timeout_s) as talk:
            with contextlib.suppress(OSError):
                talk.sendall(raw)
                talk.shutdown(socket.SHUT_WR)
            return list(answers(talk))

    def get(self, target: str, method: str = "GET") -> tuple[int, bytes]:
        talk = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            talk.request(method, target)
            answer = talk.getresponse()
            return answer.status, answer.read()
        finally:
            talk.close()

    @property
    def read(self) -> str:
        return f"/read?file_id={self.row['fid']}"

    def serves(self) -> None:
        status, body = self.get(self.read)
        expect(status == 200 and hashlib.sha256(body).hexdigest() == self.row["sha256"], f"a good client gets {status}")

    def rss_kib(self) -> int:
        for line in Path(f"/proc/{self.kelpd.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.kelpd.child.pid}/fd"))

    def stats(self) -> dict[str, Any]:
        return json.loads(self.get("/stats")[1])

    def read_ms(self, talk: http.client.HTTPConnection) -> float:
        """How long a client with manners waits for one read over a connection that it keeps."""
        began = time.perf_counter()
        talk.request("GET", self.read)
        expect(len(talk.getresponse().read()) == self.row["size"], "a good client gets other bytes")
        return (time.perf_counter() - began) * 1e3


def answers(talk: socket.socket) -> Iterator[tuple[int, dict[str, str], bytes]]:
    stream = talk.makefile("rb")
    while True:
        try:
            status = stream.readline()
            if not status:
                return
            headers = {key: value for key, value in http.client.parse_headers(stream).items()}
            yield int(status.split()[1]), headers, stream.read(int(headers.get("Content-Length", 0)))
        except OSError:
            return


@contextlib.contextmanager
def ending_target(scene: Scene, settings: dict[str, object] | None = None, row: dict[str, Any] | None = None,
                  volumes: Path | None = None) -> Iterator[Target]:
    """One that may have ended by itself at the end, with exit code 0."""
    port = process.free_ports(1)[0]
    mine = {"sidecar.listen": f"127.0.0.1:{port}"} | (settings or {})
    with scene.kelpd(volumes or scene.volumes(), settings=mine) as kelpd:
        row = row or plain_row(scene)
        kelpd.wait_serving([row["volume"]])
        one = Target(kelpd, port, row)
        wait_for("/health", lambda: one.get("/health")[0] == 200, kelpd)
        yield one


def large_needle(scene: Scene) -> tuple[Path, dict[str, Any]]:
    """Volumes with one more, number 60, that has a needle of many pieces; and what is known of that."""
    folder = scene.volumes("with-a-large-one")
    data = random.Random(scene.seed).randbytes(LARGE)
    body = struct.pack(">I", len(data)) + data + bytes(1)
    record = struct.pack(">IQi", 0x1234, 1, len(body)) + body + struct.pack(">IQ", wire.crc32c(data), 1_700_000_000 * 10**9)
    record += bytes(8 - len(record) % 8)
    (folder / "60.dat").write_bytes(struct.pack(">B7x", 3) + record)
    (folder / "60.idx").write_bytes(struct.pack(">QIBi", 1, 1, 0, len(body)))
    (folder / "60.vif").write_text('{"bytesOffset": 5}')
    return folder, {"fid": "60,0100001234", "volume": 60, "size": LARGE, "sha256": hashlib.sha256(data).hexdigest()}


@contextlib.contextmanager
def target(scene: Scene, **settings: object) -> Iterator[Target]:
    with ending_target(scene, {f"sidecar.{key}": value for key, value in settings.items()}) as one:
        yield one
        one.serves()
        is_alive(one.kelpd)


class Turns:
    """The p99 of a client with manners at a kelpd, beside that at a kelpd that nobody else asks. Their reads take turns, one by
    one, each has a CPU of its own that they change now and then, and all are judged together: what else this machine does meets
    both, but not always by as much."""

    def __init__(self, one: Target, alone: Target) -> None:
        self.targets = (one, alone)
        self.one = one
        self.cpus = [*os.sched_getaffinity(0), *os.sched_getaffinity(0)][:2]  # twice the same where there is one
        self.took_ms: tuple[list[float], list[float]] = ([], [])

    def take(self, times: int = 1, reads: int = 300) -> None:
        for _ in range(times):
            talks = [http.client.HTTPConnection("127.0.0.1", each.port, timeout=20) for each in self.targets]
            for number in range(reads):
                if number % 50 == 0:
                    self._change_cpus()
                for at in (0, 1) if number % 2 else (1, 0):  # neither is always the first
                    self.took_ms[at].append(self.targets[at].read_ms(talks[at]))
            for talk in talks:
                talk.close()

    def _change_cpus(self) -> None:
        self.cpus.reverse()
        for each, cpu in zip(self.targets, self.cpus):
            for thread in os.listdir(f"/proc/{each.kelpd.child.pid}/task"):
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setaffinity(int(thread), {cpu})

    def p99_ms(self) -> list[float]:
        """With others, and alone."""
        return [statistics.quantiles(took, n=100)[98] for took in self.took_ms]

    def rounds(self, most: float) -> Iterator[int]:
        """One, in which turns are to be taken, and up to two more while all turns so far are beyond `most`."""
        for number in range(3):
            yield number
            beside, alone = self.p99_ms()
            if beside <= most * alone:
                return

    def expect_at_most(self, most: float) -> None:
        beside, alone = self.p99_ms()
        print(f"     p99 of a good client: {beside:.2f} ms, alone {alone:.2f} ms: {beside / alone:.2f} times, "
              f"of {len(self.took_ms[0])} reads each")
        expect(beside <= most * alone, f"p99 of a good client is {beside / alone:.2f} times that alone, and not {most} at most")


@contextlib.contextmanager
def in_turns(scene: Scene, **settings: object) -> Iterator[Turns]:
    quiet = dataclasses.replace(scene, home=scene.home / "quiet")
    quiet.home.mkdir()
    with target(quiet) as alone, target(scene, **settings) as one:
        yield Turns(one, alone)
