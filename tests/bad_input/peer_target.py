"""What a promise about other hosts' gateways is checked on: a kelpd that listens for them, and an honest one beside it.

Whatever the promise does to it: the honest gateway gets right bytes and soon, what kelpd holds meanwhile is bounded and comes
back, its log is not flooded, and its keys are told to nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wire
from deaths import Held, held_by
from scene import Broken, Scene, daemon, expect, is_alive, plain_row, process, reads, wait_for

SECRETS = {1: "d41c7e0a5b93f6280d41c7e0a5b93f62", 7: "77a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f"}
MOST_STRANGERS = 64  # that are listened to at once
REFUSED, CONNECTED, ENDED = "a peer was refused", "a gateway has connected", "a gateway's connection has ended"
LATE_S = 5.0  # two CPUs, which have other work, too
BACK_WITHIN_S = 5.0
# What the allocator may keep of what it was given, after the promise.
SLACK_KIB = 4096
LINES_AT_ONCE = 20  # of a kind; then one a second


def secret(key_id: int) -> bytes:
    return bytes.fromhex(SECRETS[key_id])


def keys_file(home: Path, text: str | None = None, mode: int = 0o600) -> Path:
    path = home / "peers.keys"
    path.write_text("".join(f"{number} {key}\n" for number, key in SECRETS.items()) if text is None else text)
    path.chmod(mode)
    return path


class Witness:
    """An honest gateway that reads all the while, and looks at what kelpd holds now and then."""

    def __init__(self, gateway: wire.Gateway, target: Target) -> None:
        self.gateway, self.target = gateway, target
        self.reads, self.slowest_s, self.wrong = 0, 0.0, ""
        self.most = target.held()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.wait(0.01):
                began = time.monotonic()
                self.target.reads_right(self.gateway, slot=self.reads % 4, generation=self.reads % 256)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.reads += 1
                now = self.target.held()
                self.most = Held(*(max(pair) for pair in zip(vars(self.most).values(), vars(now).values())))
        except (Broken, OSError) as error:
            self.wrong = f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """A few reads from now."""
        wanted, give_up = self.reads + 3, time.monotonic() + LATE_S
        while self.reads < wanted and not self.wrong and time.monotonic() < give_up:
            time.sleep(0.01)
        self._over.set()
        self._thread.join(20)


@dataclass
class Target:
    """A kelpd and a needle of it, of `body`."""

    kelpd: daemon.Daemon
    address: tuple[str, int]
    fid: wire.FileId
    body: bytes
    has_asan: bool
    started: float = field(default_factory=time.monotonic)
    crc: int = 0

    def connect(self, **options: Any) -> wire.Connection:
        return wire.Connection(self.address, **options)

    def gateway(self, key_id: int = 1, **options: Any) -> wire.Gateway:
        return wire.Gateway(self.address, key_id, secret(key_id), **options)

    def reads_right(self, gateway: wire.Gateway, *, slot: int = 0, generation: int = 0) -> None:
        self.is_right(gateway.read(self.fid, len(self.body), slot=slot, generation=generation))

    def is_right(self, answer: wire.Answer) -> None:
        expect(answer.status == wire.OK, f"a needle is answered with status {answer.status}")
        expect(answer.payload == self.body and answer.crc == self.crc and answer.total == len(self.body), "other bytes came")

    def held(self) -> Held:
        return held_by(self.kelpd.child.pid)

    def log(self) -> str:
        return self.kelpd.log.read_text(errors="replace")

    def has_logged(self, sentence: str) -> None:
        wait_for(f"the log to say {sentence!r}", lambda: sentence in self.log(), self.kelpd, 3)

    def refuses(self, sent: Sequence[bytes], code: int, sentence: str, *, piece: int = 0) -> None:
        """Of `sent` each is sent when what came before was answered by a Challenge."""
        with self.connect() as stranger:
            for data in sent[:-1]:
                stranger.send(data, piece=piece)
                stranger.frame(wire.CHALLENGE)
            stranger.send(sent[-1], piece=piece)
            self.has_refused(stranger, code, sentence)

    def has_refused(self, stranger: wire.Connection, code: int, sentence: str) -> None:
        refusal = stranger.refusal()
        expect(refusal == (code, sentence), f"the target refuses with {refusal}, not {(code, sentence)}")
        if self.log().count(REFUSED) < LINES_AT_ONCE:  # later ones may be left out
            self.has_logged(sentence)

    def ends(self, gateway: wire.Connection) -> None:
        """It is closed soon; answers that were under way may come before."""
        gateway.socket.settimeout(3)
        gateway.until_closed()

    def comes_back_to(self, before: Held, may_keep_kib: int = SLACK_KIB) -> Held:
        now = self.comes_to_rest(before, may_keep_kib)
        expect(self._is_back(now, before, may_keep_kib), f"{BACK_WITHIN_S} s later: {now}, and {before} before")
        return now

    def comes_to_rest(self, before: Held, may_keep_kib: int) -> Held:
        """What it holds once that is back, or else after a while. A connection's memory is freed after its descriptor is closed."""
        give_up = time.monotonic() + BACK_WITHIN_S
        while not self._is_back(now := self.held(), before, may_keep_kib) and time.monotonic() < give_up:
            time.sleep(0.02)
        return now

    def _is_back(self, now: Held, before: Held, may_keep_kib: int) -> bool:
        return now.descriptors <= before.descriptors and (self.has_asan or now.rss_kib - before.rss_kib <= may_keep_kib)

    def tells_no_secret(self) -> None:
        told = {"the log": self.log().encode()}
        for words in (("config",), ("--json", "config"), ("--json", "health"), ("--json", "stats"), ("--json", "volumes")):
            told[f"kelpctl {' '.join(words)}"] = self.kelpd.kelpctl(*words).stdout
        told["GET /peers"] = http_get(self.kelpd, "/peers")
        expect(b"keys_file" in told["kelpctl config"], f"kelpctl config says {told['kelpctl config']!r:.200}")
        for where, text in told.items():
            has_no_secret(text, where)

    def log_is_short(self) -> None:
        most = LINES_AT_ONCE + time.monotonic() - self.started + 1
        for event in (REFUSED, CONNECTED, ENDED):
            lines = sum(event in line and "left out" not in line for line in self.log().splitlines())
            expect(lines <= most, f"{lines} lines of {event!r} in {time.monotonic() - self.started:.1f} s")


def has_no_secret(text: bytes, where: str) -> None:
    for key in SECRETS.values():
        for form in (key[:12].encode(), key[-12:].encode(), bytes.fromhex(key)[:8]):
            expect(form not in text and form.upper() not in text.upper(), f"{where} tells a key")


def http_get(kelpd: daemon.Daemon, path: str) -> bytes:
    connection = http.client.HTTPConnection("kelpd", timeout=10)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(str(kelpd.run_dir / "control.sock"))
        connection.request("GET", path)
        return connection.getresponse().read()


@contextlib.contextmanager
def target(scene: Scene, *, may_grow_kib: int = SLACK_KIB, may_open: int = MOST_STRANGERS + 4,
           may_keep_kib: int = SLACK_KIB, prefix: Sequence[str] = ()) -> Iterator[Target]:
    """`may_grow_kib` and `may_open`: what kelpd may hold beyond what it held before, while it lasts; `may_keep_kib`: after it."""
    row, port = plain_row(scene), process.free_ports(1)[0]
    peer = {"peer.listen": f"127.0.0.1:{port}", "peer.keys_file": str(keys_file(scene.home))}
    with scene.kelpd(scene.volumes(), settings=peer, prefix=prefix) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        body = kelpd.read(row["fid"])[1]
        expect(hashlib.sha256(body).hexdigest() == row["sha256"], f"{row['fid']} reads as other bytes")
        one = Target(kelpd, ("127.0.0.1", port), wire.FileId.parse(row["fid"]), body, scene.has_address_sanitizer())
        one.crc = wire.crc32c(body)
        for _ in range(3):  # what is allocated once is allocated here
            with one.gateway() as gateway:
                one.reads_right(gateway)
        with one.gateway(7) as gateway:
            for slot in range(4):
                one.reads_right(gateway, slot=slot)
            time.sleep(0.2)  # kelpctl has gone, and they
            before = one.held()
            witness = Witness(gateway, one)
            try:
                yield one
                is_alive(kelpd)
                after = one.comes_back_to(before, may_keep_kib)
                # What was over in no time had a witness all the same.
                wait_for("the honest gateway to read", lambda: witness.reads > 3 or witness.wrong, kelpd)
            finally:
                witness.end()
        print(f"     witness: {witness.reads} reads, slowest {witness.slowest_s * 1000:.0f} ms; "
              f"RSS {before.rss_kib / 1024:.1f} -> {witness.most.rss_kib / 1024:.1f} -> {after.rss_kib / 1024:.1f} MiB, "
              f"descriptors {before.descriptors} -> {witness.most.descriptors} -> {after.descriptors}")
        expect(not witness.wrong, f"the honest gateway beside it: {witness.wrong}")
        expect(witness.reads > 3 and witness.slowest_s <= LATE_S, 
               f"an honest gateway read {witness.reads} times, and waited {witness.slowest_s:.1f} s")
        expect(one.has_asan or witness.most.rss_kib - before.rss_kib <= may_grow_kib, f"{before} grew to {witness.most}")
        expect(witness.most.descriptors - before.descriptors <= may_open, f"{before} grew to {witness.most}")
        one.log_is_short()
        one.tells_no_secret()
