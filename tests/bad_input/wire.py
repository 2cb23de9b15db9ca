"""Wire v1 as a gateway speaks it (docs/wire.md), with a say over every byte, so that it can be spoken wrongly, too."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
from dataclasses import dataclass

from scene import Broken, expect

HELLO, CHALLENGE, PROOF, WELCOME, REFUSED = 1, 2, 3, 4, 5
REQUEST, ANSWER, CANCEL, PING, PONG, DRAIN = 16, 17, 18, 19, 20, 21
BYTES = {HELLO: 128, CHALLENGE: 48, PROOF: 40, WELCOME: 72, REFUSED: 128, REQUEST: 64, ANSWER: 40, CANCEL: 16, PING: 16,
         PONG: 16, DRAIN: 8}
VERSION, KEY, PROTOCOL, FULL, DRAINING = 1, 2, 3, 4, 5  # codes of a Refused
OK, NOT_FOUND, WRONG_COOKIE, RANGE, UNAVAILABLE, DEADLINE = 0, 1, 2, 4, 18, 24  # of an answer; see shm_ring/kelp.h
READ, STAT = 0, 1
MAGIC = b"KELPWIR1"
SLICE_BYTES = 1 << 20
ANY_WORKER = 0xFFFF
MOST_U64 = 2**64 - 1


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def seal(kind: int, body: bytes, *, length: int | None = None, reserved: int = 0) -> bytes:
    """A frame whose check fits, whatever else of it is wrong."""
    start = struct.pack("<HBB", 8 + len(body) if length is None else length, kind, reserved)
    return start + struct.pack("<I", crc32c(start + bytes(4) + body)) + body


def hello(*, magic: bytes = MAGIC, oldest: int = 1, newest: int = 1, role: int = 1, reserved: int = 0,
          worker: int = ANY_WORKER, slots: int = 64, key_id: int = 0, nonce: bytes | None = None,
          node: bytes = b"bad input") -> bytes:
    return seal(HELLO, struct.pack("<8sHHBBHHHI32s64s", magic, oldest, newest, role, reserved, 0, worker, slots, key_id,
                                   nonce or os.urandom(32), node))


def proof(secret: bytes, greeting: bytes, challenge: bytes) -> bytes:
    return seal(PROOF, hmac.digest(secret, b"kelp1-gw" + greeting + challenge, "sha256"))


def request(fid: FileId, length: int, *, slot: int = 0, generation: int = 0, kind: int = READ, offset: int = 0,
            timeout_us: int = 10_000_000, token: bytes = b"", token_bytes: int | None = None, reserved: int = 0) -> bytes:
    return seal(REQUEST, struct.pack("<HBBIQQIIIIQHHI", slot, generation, kind, fid.volume, fid.needle, offset, fid.cookie,
                                     length, timeout_us, 0, 0, len(token) if token_bytes is None else token_bytes, reserved,
                                     0) + token)


def cancel(slot: int, generation: int = 0) -> bytes:
    return seal(CANCEL, struct.pack("<HBBI", slot, generation, 0, 0))


def ping(value: int) -> bytes:
    return seal(PING, struct.pack("<Q", value))


@dataclass(frozen=True)
class FileId:
    volume: int
    needle: int
    cookie: int

    @classmethod
    def parse(cls, text: str) -> FileId:
        volume, rest = text.split(",")
        return cls(int(volume), int(rest[:-8], 16), int(rest[-8:], 16))


@dataclass(frozen=True)
class Answer:
    slot: int
    generation: int
    status: int
    total: int
    source: int
    payload: bytes
    crc: int  # as the target says


class Closed(Broken):
    """The other end is closed, or nothing came in time; the message says which."""


class Connection:
    """A socket to a target; frames of it come whole, with a check that fits, or are Broken."""

    def __init__(self, address: tuple[str, int], *, timeout_s: float = 5, receive_buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET)
        self.socket.settimeout(timeout_s)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes it by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes, *, piece: int = 0) -> None:
        """In pieces, if so wished. That the other end is closed is for who reads next to find."""
        try:
            for at in range(0, len(data), piece or len(data) or 1):
                self.socket.sendall(data[at:at + piece] if piece else data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                more = self.socket.recv(min(count - len(data), 1 << 16))
            except TimeoutError:
                raise Closed(f"nothing came for {self.socket.gettimeout()} s") from None
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed("it was closed")
            data += more
        return bytes(data)

    def frame(self, kind: int) -> bytes:
        """The next one, which has to be of that kind."""
        start = self._exactly(8)
        length, came, reserved, check = struct.unpack("<HBBI", start)
        expect(came in BYTES and length == BYTES[came] and reserved == 0, f"the target sends {start!r}")
        whole = start + self._exactly(length - 8)
        expect(check == crc32c(whole[:4] + bytes(4) + whole[8:]), f"the check of {whole!r} does not fit")
        expect(came == kind, f"the target sends a frame of kind {came}, not {kind}: {whole!r}")
        return whole

    def refusal(self) -> tuple[int, str]:
        """Code and sentence of a Refused, and then the close."""
        whole = self.frame(REFUSED)
        self.until_closed()
        code, reserved, sentence = struct.unpack("<HH116s", whole[8:])
        expect(reserved == 0 and sentence.endswith(b"\0"), f"the target sends {whole!r}")
        return code, sentence.rstrip(b"\0").decode("ascii")

    def answer(self) -> Answer:
        """Its payload is not judged: crc32c() takes long here."""
        slot, generation, status, _, _, count, crc, total, source = struct.unpack("<HBBHHIIQQ", self.frame(ANSWER)[8:])
        return Answer(slot, generation, status, total, source, self._exactly(count), crc)

    def until_closed(self) -> int:
        """Passes over what comes until the close; how many bytes that was."""
        count = 0
        try:
            while got := self.socket.recv(1 << 16):
                count += len(got)
        except TimeoutError:
            raise Closed(f"it is still open, {self.socket.gettimeout()} s later") from None
        except ConnectionResetError:
            pass
        return count

    def is_closed(self) -> bool:
        """Without waiting; what has come is passed over."""
        patience = self.socket.gettimeout()
        self.socket.setblocking(False)  # MSG_DONTWAIT is not enough: Python waits by poll()
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        finally:
            self.socket.settimeout(patience)
        return True


class Gateway(Connection):
    """One that has come to an agreement; `recorded` is what it sent for that."""

    def __init__(self, address: tuple[str, int], key_id: int, secret: bytes, *, piece: int = 0, behind: bytes = b"",
                 greeting: bytes = b"", receive_buffer: int = 0) -> None:
        super().__init__(address, receive_buffer=receive_buffer)
        try:
            greeting = greeting or hello(key_id=key_id)
            self.send(greeting, piece=piece)
            challenge = self.frame(CHALLENGE)
            proved = proof(secret, greeting, challenge)
            self.send(proved + behind, piece=piece)
            welcome = self.frame(WELCOME)
        except BaseException:
            self.socket.close()
            raise
        self.recorded = (greeting, proved)
        self.slots, self.workers, self.worker, _, self.slice_bytes = struct.unpack("<HHHHI", welcome[8:20])
        mac = hmac.digest(secret, b"kelp1-tgt" + greeting + challenge + welcome[8:40], hashlib.sha256)
        expect(mac == welcome[40:], "the target does not know the key")

    def read(self, fid: FileId, length: int, *, slot: int = 0, generation: int = 0, offset: int = 0) -> Answer:
        self.send(request(fid, length, slot=slot, generation=generation, offset=offset))
        answer = self.answer()
        expect((answer.slot, answer.generation) == (slot, generation), f"the answer is to another request: {answer.slot}")
        return answer

