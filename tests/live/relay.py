"""Ports of 127.0.0.1 that lead to one kelpd, and see what is said on the way: requests, answers, and those that come late.

Its connections can be reset, and answers held back in the middle. A thread of this process, ended by close().
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

T = TypeVar("T")

# docs/wire.md
REQUEST, ANSWER, CANCEL = 16, 17, 18
HEADER_BYTES = 8
# What is more does not go on while its reader is stopped.
MOST_WAITING_BYTES = 256 << 10
# An answer of more is held back in its middle.
LONG_BYTES = 64 << 10


class Frames:
    """One direction of a connection, cut into frames."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.frame: bytes | None = None  # whose payload comes
        self.left = 0                    # of that

    def take(self, more: bytes) -> Iterator[bytes]:
        """Those that are there now, with all of their payload."""
        self.received += more
        while True:
            if self.frame is None and not self._begin():
                return
            taken = min(self.left, len(self.received))
            del self.received[:taken]
            self.left -= taken
            if self.left:
                return
            whole, self.frame = self.frame, None
            assert whole
            yield whole

    def _begin(self) -> bool:
        size = int.from_bytes(self.received[:2], "little")
        if len(self.received) < HEADER_BYTES or len(self.received) < size:
            return False
        if size < HEADER_BYTES:
            raise ValueError("a frame without a header")
        self.frame = bytes(self.received[:size])
        del self.received[:size]
        self.left = int.from_bytes(self.frame[16:20], "little") if self.frame[2] == ANSWER else 0
        return True


@dataclass
class Counts:
    connections: int = 0  # of gateways
    ended: int = 0        # of those
    requests: int = 0
    answers: int = 0
    late: int = 0         # of those: their request had been cancelled
    cut_off: int = 0      # requests that were waited for when their connection ended


class End(asyncio.Protocol):
    """One end of a connection; what comes goes on to the other one."""

    transport: asyncio.Transport | None = None
    other: End
    held = False

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=MOST_WAITING_BYTES)
        if self.pair.over:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.pair.seen(self, data)
        if self.other.transport:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport and not self.other.held:
            self.other.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self.pair.reset()

    def hold(self, held: bool) -> None:
        self.held = held
        if self.transport and not self.transport.is_closing():
            (self.transport.pause_reading if held else self.transport.resume_reading)()


class Pair:
    """A gateway's connection and the one to the target that belongs to it."""

    def __init__(self, relay: Relay, port: int) -> None:
        self.relay, self.port = relay, port
        self.gateway, self.target = End(self), End(self)
        self.gateway.other, self.target.other = self.target, self.gateway
        self.frames = {self.gateway: Frames(), self.target: Frames()}
        self.asked: dict[int, int] = {}            # slot: generation
        self.cancelled: set[tuple[int, int]] = set()
        self.over = False

    async def connect(self) -> None:
        """To the target, once the gateway's end is there."""
        assert self.gateway.transport
        self.gateway.transport.pause_reading()
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(lambda: self.target, *self.relay.target)
            self.gateway.transport.resume_reading()
            return
        self.reset()

    def seen(self, end: End, data: bytes) -> None:
        counts = self.relay.counts
        for frame in self.frames[end].take(data):
            kind = frame[2]
            if kind not in (REQUEST, ANSWER, CANCEL):
                continue
            slot, generation = struct.unpack_from("<HB", frame, 8)
            if kind == REQUEST:
                counts.requests += 1
                self.asked[slot] = generation
            elif kind == CANCEL:
                if self.asked.get(slot) == generation:
                    self.cancelled.add((slot, generation))
            else:
                counts.answers += 1
                counts.late += (slot, generation) in self.cancelled
                self.cancelled.discard((slot, generation))
                self.asked.pop(slot, None)
        if self.relay.holds_long and self.target is end and self.frames[end].left > LONG_BYTES:
            end.hold(True)

    def reset(self) -> None:
        """Both connections, as by a device that has forgotten them."""
        if self.over:
            return
        self.over = True
        self.relay.pairs.discard(self)
        self.relay.counts.ended += 1
        self.relay.counts.cut_off += len(self.asked) - len(self.cancelled)
        for transport in (self.gateway.transport, self.target.transport):
            if transport:
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()


class Relay:
    """A context manager. Its `addresses` all lead to the target; `counts` is of all of them."""

    def __init__(self, target: str, ports: int = 1) -> None:
        host, _, port = target.rpartition(":")
        self.target = (host, int(port))
        self.ports = ports
        self.addresses: list[str] = []
        self.counts = Counts()
        self.pairs: set[Pair] = set()
        self.holds_long = False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="relay", daemon=True)
        self.servers: list[asyncio.Server] = []

    def __enter__(self) -> Relay:
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _listen(self) -> None:
        for port in range(self.ports):
            server = await self.loop.create_server(lambda port=port: self._accepted(port), "127.0.0.1", 0)
            self.servers.append(server)
            self.addresses.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    async def _close(self) -> None:
        for server in self.servers:
            server.close()
        for pair in list(self.pairs):
            pair.reset()
        await asyncio.sleep(0)  # transports close in the next turn

    def _accepted(self, port: int) -> End:
        pair = Pair(self, port)
        self.pairs.add(pair)
        self.counts.connections += 1
        self.loop.call_soon(lambda: self.loop.create_task(pair.connect()))
        return pair.gateway

    def call(self, act: Callable[[], T]) -> T:
        """In the relay's thread."""
        async def acts() -> T:
            return act()
        return asyncio.run_coroutine_threadsafe(acts(), self.loop).result(10)

    def reset(self, port: int) -> int:
        """Resets the connections of one port; how many there were."""
        def act() -> int:
            found = [pair for pair in self.pairs if pair.port == port]
            for pair in found:
                pair.reset()
            return len(found)
        return self.call(act)

    def hold(self, port: int, held: bool) -> None:
        """Answers that come by this port stay here meanwhile."""
        def act() -> None:
            for pair in self.pairs:
                if pair.port == port:
                    pair.target.hold(held)
        self.call(act)

    def hold_long(self) -> None:
        """The next long answer stops in its middle, and all behind it, until let_go()."""
        self.holds_long = True

    def let_go(self) -> None:
        def act() -> None:
            self.holds_long = False
            for pair in self.pairs:
                pair.target.hold(False)
        self.call(act)

    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return self.call(lambda: sum(len(pair.asked) for pair in self.pairs))
