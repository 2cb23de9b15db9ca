"""Gateways that have a key, and break the protocol behind the handshake, do not read what they are sent, or come and go.

--full: a thousand connections that come and go, ten times as much that is not read.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import replace

import wire
from peer_target import CONNECTED, ENDED, SLACK_KIB, Target, target
from scene import Broken, Scene, expect, promise, wait_for

MOST_LINKS = 256  # of one worker
SMALL = 4096  # a socket's buffer
# What one round may keep more than those before it, and how many there are at most.
STEP_KIB, MOST_ROUNDS = SLACK_KIB // 4, 6
LINK_KIB = 160  # what a connection takes beside what it reads into


def breaks(one: Target, sent: bytes, *, piece: int = 0) -> None:
    """A connection that reads before, and is ended by `sent`."""
    with one.gateway() as gateway:
        one.reads_right(gateway)
        gateway.send(sent, piece=piece)
        try:
            one.ends(gateway)
        except wire.Closed as error:
            raise Broken(f"after {sent[:80]!r}: {error}") from None


@promise("peers")
def a_gateway_that_breaks_the_protocol_is_ended_and_the_log_tells(scene: Scene) -> None:
    chance = random.Random(scene.seed)
    with target(scene) as one:
        length, fid = len(one.body), one.fid
        good = wire.request(fid, length)
        beyond = [wire.request(fid, length, slot=slot) for slot in (64, 65, 1023, 1024, 65535)]
        lengths = [wire.request(fid, wrong) for wrong in (0, wire.SLICE_BYTES + 1, 2**31, 2**32 - 1)]
        fields = [wire.request(fid, length, kind=2), wire.request(fid, length, kind=255),
                  wire.request(fid, length, reserved=1), wire.request(fid, length, token_bytes=1),
                  wire.request(fid, length, token=b"abc", token_bytes=2), wire.request(fid, length, token=b"", token_bytes=65535)]
        kinds = [wire.seal(kind, chance.randbytes(size - 8)) for kind, size in wire.BYTES.items()
                 if kind not in (wire.REQUEST, wire.CANCEL, wire.PING, wire.PONG)]
        unknown = [wire.seal(kind, bytes(8)) for kind in (0, 6, 22, 128, 255)]
        cancels = [wire.cancel(slot) for slot in (64, 65535)]
        turned = bytearray(good)
        turned[chance.randrange(8, 64)] ^= 1 << chance.randrange(8)
        others = [bytes(turned), chance.randbytes(4096), b"GET / HTTP/1.1\r\n\r\n", good + chance.randbytes(64)]
        for sent in beyond + lengths + fields + kinds + unknown + cancels + others:
            breaks(one, sent)
            breaks(one, sent, piece=1)
        breaks(one, good * 64)  # a slot again and again, before it is answered
        one.has_logged(ENDED)


@promise("peers")
def odd_requests_are_answered_and_the_connection_goes_on(scene: Scene) -> None:
    with target(scene) as one, one.gateway() as gateway:
        length, fid = len(one.body), one.fid
        expected: list[tuple[wire.FileId, dict[str, int], set[int]]] = [
            *((fid, {"offset": offset}, {wire.RANGE}) for offset in
              (length + 1, length + 4097, 2**31 + 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, wire.MOST_U64 - length, wire.MOST_U64)),
            *((wire.FileId(volume, 1, 1), {}, {wire.UNAVAILABLE}) for volume in (0, 4711, 2**32 - 1)),
            (wire.FileId(fid.volume, fid.needle, fid.cookie ^ 1), {}, {wire.WRONG_COOKIE}),
            *((wire.FileId(fid.volume, needle, 0), {}, {wire.NOT_FOUND}) for needle in (0, wire.MOST_U64, fid.needle ^ 1)),
            *((fid, {"timeout_us": timeout}, {wire.DEADLINE, wire.OK}) for timeout in (0, 1, 2**32 - 1)),
        ]
        for generation, (asked, options, statuses) in enumerate(expected):
            gateway.send(wire.request(asked, length, slot=generation, generation=generation, **options))
            answer = gateway.answer()
            expect(answer.slot == answer.generation == generation, f"{asked} {options}: an answer to {answer.slot}")
            expect(answer.status in statuses, f"{asked} {options}: status {answer.status}, not {statuses}")
            expect(answer.status == wire.OK or not answer.payload, f"{asked} {options}: {len(answer.payload)} bytes")
        for offset, count in ((length, 1), (length - 1, wire.SLICE_BYTES), (1, 1), (4095, 4099), (0, wire.SLICE_BYTES)):
            answer = gateway.read(fid, count, offset=offset)
            right = one.body[offset:offset + count]
            expect(answer.status == wire.OK and answer.payload == right and answer.crc == wire.crc32c(right),
                   f"{count} bytes at {offset}: status {answer.status}, {len(answer.payload)} bytes")
        for slot in (0, 1, 63):  # never asked, or answered
            gateway.send(wire.cancel(slot) + wire.cancel(slot, 200))
        gateway.send(wire.seal(wire.PONG, bytes(8)))
        gateway.send(wire.request(fid, length, slot=5, token=b"x" * 448))
        one.is_right(gateway.answer())
        gateway.send(wire.request(fid, length, slot=5, generation=1) + wire.cancel(5, 1))
        cancelled = gateway.answer()
        if cancelled.status != wire.DEADLINE or cancelled.payload:
            one.is_right(cancelled)
        gateway.send(b"".join(wire.ping(value) for value in range(100)))
        for value in range(100):
            expect(gateway.frame(wire.PONG)[8:] == struct.pack("<Q", value), "a Pong is of another Ping")
        one.reads_right(gateway)


def pour(gateway: wire.Gateway, data: bytes, most_bytes: int) -> tuple[int, str]:
    """Sends it again and again, and reads nothing. How much went, and why no more did."""
    gateway.socket.settimeout(1)
    sent = 0
    while sent < most_bytes:
        try:
            sent += gateway.socket.send(data[sent % len(data):])
        except TimeoutError:
            return sent, "it takes no more"
        except (BrokenPipeError, ConnectionResetError):
            return sent, "it was closed"
    return sent, "it takes all"


@promise("peers")
def pings_whose_pongs_nobody_reads_cost_no_memory(scene: Scene) -> None:
    most = (64 << 20) if scene.full else (16 << 20)
    with target(scene) as one, one.gateway(receive_buffer=SMALL) as gateway:
        pings = b"".join(wire.ping(value) for value in range(4096))
        sent, why = pour(gateway, pings, most)
        print(f"     {sent} bytes of Pings: {why}")
        expect(why != "it takes all", f"{sent} bytes of Pings were taken, and no Pong was read")


@promise("peers")
def answers_that_nobody_reads_are_bounded_by_the_slots_and_wait_for_who_reads_late(scene: Scene) -> None:
    gateways = 8 if scene.full else 2
    slots = 64
    with contextlib.ExitStack() as stack:
        rooms_kib = gateways * (slots * 40 + LINK_KIB)
        one = stack.enter_context(target(scene, may_grow_kib=SLACK_KIB + rooms_kib))
        unread = [stack.enter_context(one.gateway(receive_buffer=SMALL)) for _ in range(gateways)]
        for gateway in unread:
            expect(gateway.slots == slots, f"{gateway.slots} slots were granted")
            gateway.send(b"".join(wire.request(one.fid, len(one.body), slot=slot, generation=9) for slot in range(slots)))
        time.sleep(1.5)
        with one.gateway() as gateway:
            one.reads_right(gateway)
        late = unread[0]
        answered = [late.answer() for _ in range(slots)]
        expect(sorted(answer.slot for answer in answered) == list(range(slots)), "not each slot was answered once")
        for answer in answered:
            one.is_right(answer)
        one.reads_right(late, slot=3, generation=10)
        # Who asks on although nothing of the last answers was read has no end of slots.
        flood = unread[1]
        requests = b"".join(wire.request(one.fid, len(one.body), slot=slot, generation=10) for slot in range(slots))
        sent, why = pour(flood, requests, (64 << 20) if scene.full else (16 << 20))
        print(f"     {sent} bytes of requests whose answers nobody reads: {why}")
        expect(why != "it takes all", f"{sent} bytes of requests were taken, and no answer was read")
        for gateway in unread:
            gateway.socket.close()


def come_and_go(one: Target, count: int) -> None:
    for cycle in range(count):
        gateway = one.gateway(7 if cycle % 3 == 0 else 1)
        one.reads_right(gateway)
        if cycle % 2:
            gateway.send(b"".join(wire.request(one.fid, len(one.body), slot=slot, generation=1) for slot in range(16)))
            gateway.reset()
        else:
            gateway.socket.close()


@promise("peers")
def gateways_that_come_and_go_leave_nothing_behind(scene: Scene) -> None:
    cycles = 1_000 if scene.full else 100
    with target(scene) as one:
        tells = one.held()
        come_and_go(one, cycles // 10)
        kept = [one.comes_back_to(tells).rss_kib]
        while len(kept) == 1 or grows_each_time(one, kept):
            began = time.monotonic()
            come_and_go(one, cycles)
            took = time.monotonic() - began
            kept.append(one.comes_to_rest(replace(tells, rss_kib=kept[-1]), STEP_KIB).rss_kib)
        print(f"     {cycles} connections in {took:.1f} s, half of them reset; after a tenth and after each of such rounds "
              f"{kept} KiB")
        # A request that came in one piece with the proof, and one half that is shut.
        with one.gateway(behind=wire.request(one.fid, len(one.body), slot=2)) as gateway:
            one.is_right(gateway.answer())
            gateway.socket.shutdown(socket.SHUT_WR)
            one.ends(gateway)
        one.has_logged(CONNECTED)


@promise("peers")
def a_worker_has_so_many_gateways_and_the_next_one_is_closed_and_told_in_the_log(scene: Scene) -> None:
    more, kept = 20, []
    links_kib = MOST_LINKS * LINK_KIB
    # What they took is free, and mostly kept by the allocator for the next: once, and not once more each time.
    with target(scene, may_grow_kib=SLACK_KIB + links_kib, may_keep_kib=SLACK_KIB + links_kib, may_open=MOST_LINKS + 8) as one:
        before = one.held()
        while len(kept) < (5 if scene.full else 3) or grows_each_time(one, kept):
            with contextlib.ExitStack() as stack:
                gateways = [stack.enter_context(one.gateway()) for _ in range(MOST_LINKS + more)]
                wait_for("those beyond to be closed", lambda: all(each.is_closed() for each in gateways[-more:]), one.kelpd, 3)
                allowed = [each for each in gateways if not each.is_closed()]
                expect(len(allowed) == MOST_LINKS - 1, f"{len(allowed)} connections of a worker beside the first")
                for gateway in allowed[::16]:
                    one.reads_right(gateway)
            wait_for("a place again", lambda: is_let_in(one), one.kelpd)
            one.comes_back_to(before, SLACK_KIB + links_kib)
            kept.append(one.comes_to_rest(replace(before, rss_kib=max(kept, default=before.rss_kib)), STEP_KIB).rss_kib)
        print(f"     after {MOST_LINKS} connections at once, each time: {kept} KiB")
        one.has_logged("the worker has too many connections")


def grows_each_time(one: Target, kept: Sequence[int]) -> bool:
    """Whether it has grown in the last of these rounds, so that there is to be another. Memory that is used for the first time
    makes it more once; what leaks makes it more in each of them, which is complained of."""
    if one.has_asan or kept[-1] - max(kept[:-1]) <= STEP_KIB:
        return False
    expect(len(kept) < MOST_ROUNDS, f"kelpd grows each time: {kept} KiB")
    return True


def is_let_in(one: Target) -> bool:
    try:
        with one.gateway() as gateway:
            one.reads_right(gateway)
            return True
    except wire.Closed:
        return False
