"""Strangers at the door for other hosts' gateways: without a key, without manners, without number. See docs/wire.md.

--full: ten times as many strangers.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import random
import struct
import time
from collections.abc import Callable

import wire
from limits import FEW_DESCRIPTORS, cpu_seconds
from peer_target import (LATE_S, MOST_STRANGERS, REFUSED, SECRETS, Target, has_no_secret, http_get, keys_file, secret,
                         target)
from scene import Broken, Scene, daemon, expect, plain_row, process, promise, wait_for

NO_FRAME = "what came is no frame of Wire v1"
NOT_NOW = "the gateway sends a frame that cannot come now"
NO_KEY = "the gateway does not know a key of this target"
NO_GREETING = "this is not the greeting of a gateway"
NO_PLACE = "the gateway asks for no slots, or for a worker that is not there"
TOO_SLOW = "it does not come to an agreement in time"
OTHERS = "others come after it"
HANDSHAKE_S = 2.0
SEEN_S = 2.0  # later than that a close has been seen
BATCH = 100  # the backlog holds 128


def no_proof(one: Target, key_id: int, proved: bytes | None, **options: int) -> bytes:
    """All that the target says to a gateway that cannot prove itself, but for its nonce."""
    with one.connect() as stranger:
        greeting = wire.hello(key_id=key_id)
        stranger.send(greeting, **options)
        challenge = stranger.frame(wire.CHALLENGE)
        stranger.send(proved or wire.proof(os.urandom(16), greeting, challenge), **options)
        refused = stranger.frame(wire.REFUSED)
        stranger.until_closed()
        return challenge[8:16] + refused


@promise("peers")
def a_gateway_without_a_key_of_the_target_is_refused_and_is_not_told_which_keys_there_are(scene: Scene) -> None:
    with target(scene) as one:
        zeroes = wire.seal(wire.PROOF, bytes(32))
        wrong = no_proof(one, 1, None)
        expect(struct.unpack_from("<H", wrong, 16)[0] == wire.KEY and NO_KEY.encode() in wrong, f"it is told {wrong!r}")
        for key_id in (0, 1, 2, 7, 2**32 - 1):
            for proved in (None, zeroes):
                for piece in (0, 1):
                    said = no_proof(one, key_id, proved, piece=piece)
                    expect(said == wrong, f"a key that is not there is told from a proof that is wrong: {said!r}, {wrong!r}")
        one.has_logged(NO_KEY)
        # The right secret under another's id, and by another's label.
        for key_id, label in ((7, b"kelp1-gw"), (1, b"kelp1-tgt"), (1, b"")):
            greeting = wire.hello(key_id=key_id)
            with one.connect() as stranger:
                stranger.send(greeting)
                mac = hmac.digest(secret(1), label + greeting + stranger.frame(wire.CHALLENGE), "sha256")
                stranger.send(wire.seal(wire.PROOF, mac))
                one.has_refused(stranger, wire.KEY, NO_KEY)


@promise("peers")
def a_greeting_of_another_version_or_of_no_gateway_is_refused_and_says_why(scene: Scene) -> None:
    with target(scene) as one:
        for oldest, newest in ((2, 3), (0, 0), (2, 1), (1, 0), (65535, 65535)):
            sentence = f"this kelpd speaks versions 1 to 1, the gateway {oldest} to {newest}"
            one.refuses([wire.hello(oldest=oldest, newest=newest, key_id=1)], wire.VERSION, sentence)
        for wrong in (wire.hello(magic=b"KELPWIR2"), wire.hello(magic=b"1RIWPLEK"), wire.hello(magic=bytes(8)),
                      wire.hello(role=0), wire.hello(role=2), wire.hello(role=255), wire.hello(reserved=1)):
            one.refuses([wrong], wire.PROTOCOL, NO_GREETING)
        for wrong in (wire.hello(slots=0), wire.hello(worker=1), wire.hello(worker=65534)):
            one.refuses([wrong], wire.PROTOCOL, NO_PLACE)
        with one.gateway(greeting=wire.hello(oldest=0, newest=65535, slots=65535, key_id=1)) as gateway:
            expect(0 < gateway.slots <= 1024 and gateway.slice_bytes == wire.SLICE_BYTES, f"{gateway.slots} slots were granted")
            one.reads_right(gateway, slot=gateway.slots - 1)
        name = b"\x1b[31mred\n2026-01-01T00:00:00.000Z error a line of its own\xff"
        with one.gateway(greeting=wire.hello(slots=1, key_id=1, node=name.ljust(64, b"x"))) as gateway:
            expect(gateway.slots == 1, f"{gateway.slots} slots were granted to one that wanted 1")
            one.reads_right(gateway)
            told = json.loads(http_get(one.kelpd, "/peers"))["peers"]
            expect(any(peer["node"].startswith("?[31mred?2026") for peer in told), f"GET /peers says {told}")
        expect("\nerror" not in one.log() and "\x1b" not in one.log() and "\n2026-01-01" not in one.log(), "a name is a line")


def garbage(chance: random.Random) -> list[tuple[bytes, str]]:
    """What a stranger may say, and the sentence it is refused with."""
    greeting = wire.hello(key_id=1)
    flipped = [bytearray(greeting) for _ in range(20)]
    for one in flipped:
        at = chance.choice([*range(4, 128)] if one is not flipped[0] else [4])
        one[at] ^= 1 << chance.randrange(8)
    others = [wire.seal(kind, chance.randbytes(size - 8)) for kind, size in wire.BYTES.items()
              if kind not in (wire.HELLO, wire.REFUSED)]
    return [
        *((chance.randbytes(chance.choice([8, 100, 1000])), NO_FRAME) for _ in range(10)),
        *((bytes(one), NO_FRAME) for one in flipped),
        (wire.seal(wire.HELLO, greeting[8:], length=65535), NO_FRAME),
        (wire.seal(wire.HELLO, greeting[8:], length=0), NO_FRAME),
        (wire.seal(wire.HELLO, greeting[8:], length=7), NO_FRAME),
        (wire.seal(wire.HELLO, greeting[8:-1]), NO_FRAME),
        (wire.seal(wire.HELLO, greeting[8:] + b"\0"), NO_FRAME),
        (wire.seal(wire.HELLO, greeting[8:], reserved=1), NO_FRAME),
        (wire.seal(wire.REQUEST, bytes(505)), NO_FRAME),
        (wire.seal(wire.REQUEST, bytes(55)), NO_FRAME),
        *((wire.seal(kind, bytes(120)), NO_FRAME) for kind in (0, 6, 15, 22, 255)),
        *((one, NOT_NOW) for one in others),
        (wire.seal(wire.REQUEST, bytes(504)), NOT_NOW),
        (bytes(128), NO_FRAME),
        (b"\xff" * 128, NO_FRAME),
        (b"GET / HTTP/1.1\r\nHost: kelpd\r\n\r\n", NO_FRAME),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(506), NO_FRAME),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", NO_FRAME),
    ]


@promise("peers")
def garbage_whole_or_byte_by_byte_before_or_after_the_challenge_is_refused(scene: Scene) -> None:
    chance = random.Random(scene.seed)
    greeting = wire.hello(key_id=1)
    with target(scene) as one:
        one.refuses([greeting, wire.hello(key_id=1)], wire.PROTOCOL, NOT_NOW)
        for piece in (0, 1):
            for said, sentence in garbage(chance):
                one.refuses([said], wire.PROTOCOL, sentence, piece=piece)
                proof_shaped = said[2:3] == bytes([wire.PROOF]) and sentence == NOT_NOW
                one.refuses([greeting, said], wire.KEY if proof_shaped else wire.PROTOCOL, NO_KEY if proof_shaped else sentence,
                            piece=piece)
        for _ in range(10):  # more than is listened to: a close, and maybe the sentence before it
            with one.connect() as stranger:
                stranger.send(chance.randbytes(1 << 20))
                stranger.until_closed()
        with one.connect() as stranger:  # it refuses us: that is the end, and told
            stranger.send(wire.seal(wire.REFUSED, struct.pack("<HH116s", 2, 0, b"\x1b\nno\n")))
            expect(stranger.until_closed() == 0, "a refusal is answered")
        with one.gateway(piece=1) as gateway:
            gateway.send(wire.request(one.fid, len(one.body)), piece=1)
            one.is_right(gateway.answer())


def silent_strangers(one: Target) -> list[float]:
    """How long each was listened to."""
    greeting, took = wire.hello(key_id=1), []
    with contextlib.ExitStack() as stack:
        strangers = []
        for parts in ([b""], [b"\x80"], [greeting[:7]], [greeting[:127]], [greeting, b""], [greeting, b"\x28"],
                      [wire.seal(wire.REQUEST, bytes(504))[:511]]):
            since = time.monotonic()
            strangers.append((stack.enter_context(one.connect()), since))
            for part in parts:
                strangers[-1][0].send(part)
        for stranger, since in strangers:
            stranger.until_closed()
            took.append(time.monotonic() - since)
    return took


def slow_stranger(one: Target) -> list[float]:
    """How long one was listened to that says a byte now and then."""
    since = time.monotonic()
    with one.connect() as stranger:
        for byte in wire.hello(key_id=1)[:100]:
            stranger.send(bytes([byte]))
            time.sleep(0.05)
            if stranger.is_closed():
                break
        return [time.monotonic() - since]


@promise("peers")
def half_a_frame_is_waited_for_for_two_seconds(scene: Scene) -> None:
    def is_waited_for(who: str, listened_to: Callable[[Target], list[float]]) -> None:
        for _ in range(3):  # it is for kelpd to close in time, and for this machine to show it
            took = listened_to(one)
            expect(min(took) >= HANDSHAKE_S - 0.2, f"a {who} stranger was listened to for {min(took):.1f} s")
            if max(took) <= HANDSHAKE_S + SEEN_S:
                return
        raise Broken(f"three times a {who} stranger was listened to for longer than it may be, now for {max(took):.1f} s")

    with target(scene) as one:
        is_waited_for("silent", silent_strangers)
        one.has_logged(TOO_SLOW)
        is_waited_for("slow", slow_stranger)


@promise("peers")
def what_was_heard_of_another_handshake_proves_nothing(scene: Scene) -> None:
    with target(scene) as one:
        for _ in range(10 if scene.full else 3):
            with one.gateway() as gateway:
                one.reads_right(gateway)
                greeting, proved = gateway.recorded
                # While it is up, and all of it, with a request behind it.
                one.refuses([greeting, proved + wire.request(one.fid, len(one.body))], wire.KEY, NO_KEY)
                one.refuses([greeting, proved], wire.KEY, NO_KEY, piece=1)
                one.refuses([wire.hello(key_id=1), proved], wire.KEY, NO_KEY)
            one.refuses([greeting, proved], wire.KEY, NO_KEY)
            with one.connect() as stranger:  # at once, as it was recorded
                stranger.send(greeting + proved)
                stranger.frame(wire.CHALLENGE)
                one.has_refused(stranger, wire.KEY, NO_KEY)
        # A proof for one challenge under another one of the same time.
        with one.connect() as first, one.connect() as second:
            greeting = wire.hello(key_id=1)
            first.send(greeting)
            second.send(greeting)
            challenges = first.frame(wire.CHALLENGE), second.frame(wire.CHALLENGE)
            expect(challenges[0] != challenges[1], "a nonce came twice")
            second.send(wire.proof(secret(1), greeting, challenges[0]))
            one.has_refused(second, wire.KEY, NO_KEY)
            first.send(wire.proof(secret(1), greeting, challenges[0]))
            first.frame(wire.WELCOME)


def newcomer(one: Target) -> int:
    """Connects, as a gateway does, until it is let in, and reads; how often it had to try."""
    for tries in range(1, 21):
        try:
            with one.gateway() as gateway:
                one.reads_right(gateway)
                return tries
        except (wire.Closed, OSError):
            continue
    raise Broken("of 20 connections of an honest gateway, none was let in")


@promise("peers")
def strangers_by_the_thousand_are_let_go_and_gateways_are_let_in(scene: Scene) -> None:
    strangers = 10_000 if scene.full else 1_000
    with target(scene) as one:
        began, tries = time.monotonic(), []
        for _ in range(0, strangers, BATCH):
            with contextlib.ExitStack() as stack:
                for _ in range(BATCH):
                    stack.enter_context(one.connect())
                tries.append(newcomer(one))
        took = time.monotonic() - began
        print(f"     {strangers} strangers in {took:.1f} s; of a newcomer's attempts, {max(tries)} at most were needed")
        one.has_logged(OTHERS)
        counters = json.loads(http_get(one.kelpd, "/peers"))["counters"]
        expect(counters["refused"] >= strangers - MOST_STRANGERS, f"/peers counts {counters}")


@promise("peers")
def of_five_hundred_silent_strangers_sixty_four_are_listened_to_for_two_seconds(scene: Scene) -> None:
    for _ in range(3):  # on a machine that stands still they may all be closed for their silence by then
        if sixty_four_are_listened_to(scene):
            return
    expect(False, "each time more of them were listened to for over 1.5 s")


def sixty_four_are_listened_to(scene: Scene) -> bool:
    """False: others were not closed in time."""
    with target(scene) as one, contextlib.ExitStack() as stack:
        began = time.monotonic()
        strangers: list[wire.Connection] = []
        while len(strangers) < 500:
            strangers += [stack.enter_context(one.connect()) for _ in range(BATCH)]
            time.sleep(0.02)  # a SYN beyond the backlog would be sent anew a second later
        opened = time.monotonic()
        while (open_ones := sum(not each.is_closed() for each in strangers)) > MOST_STRANGERS:
            if time.monotonic() - opened > 1.5:
                return False
        expect(newcomer(one) == 1, "an honest gateway was not let in beside silent strangers")
        wait_for("all to be closed", lambda: all(each.is_closed() for each in strangers), one.kelpd, HANDSHAKE_S + LATE_S)
        took = time.monotonic() - opened
        print(f"     500 opened in {opened - began:.2f} s, {open_ones} of them listened to; all closed {took:.2f} s later")
        one.has_logged(OTHERS)
        expect(one.log().count(REFUSED) >= 20, "refusals are not told")
        wait_for("a line that tells how many were left out",
                 lambda: any("left out" in line and REFUSED in line for line in one.log().splitlines()), one.kelpd, 70)
    return True


@promise("peers")
def strangers_who_take_all_descriptors_neither_stop_nor_busy_kelpd(scene: Scene) -> None:
    few = ["prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"]
    with target(scene, prefix=few) as one:
        with contextlib.ExitStack() as stack:
            for _ in range(2 * FEW_DESCRIPTORS):
                stack.enter_context(one.connect())
            before = cpu_seconds(one.kelpd)
            time.sleep(1)
            spent = cpu_seconds(one.kelpd) - before
            print(f"     {spent:.2f} s of CPU in the second after 128 strangers came to {FEW_DESCRIPTORS} descriptors")
            expect(spent < 0.5, f"kelpd spins: {spent:.2f} s of CPU in one second")
            newcomer(one)
        newcomer(one)


# ---- the start

def starts_in_vain(scene: Scene, lines: dict[str, str], *sentences: str) -> None:
    config = scene.home / "vain.toml"
    config.write_text("[peer]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))
    run_dir = scene.home / "run"
    run_dir.mkdir(exist_ok=True)
    code, said = scene.start_in_vain("--config", config, "--volume-dir", scene.home / "vs", "--run-dir", run_dir)
    expect(code == 1, f"{lines}: exit code {code}: {said}")
    for sentence in sentences:
        expect(sentence in said, f"{lines}: no {sentence!r} in {said!r}")
    has_no_secret(said.encode(), "the start")


@promise("peers")
def a_kelpd_without_a_key_listens_to_nobody_but_its_own_host(scene: Scene) -> None:
    scene.volumes()
    port = process.free_ports(1)[0]
    for host in ("0.0.0.0", "192.0.2.1", "[::]"):
        for more in ({}, {"keys_file": '""'}, {"allow_unauthenticated": "false"}):
            starts_in_vain(scene, {"listen": f'["{host}:{port}"]'} | more, "peer.listen", "peer.keys_file",
                           "can be reached from other hosts")
    empty = keys_file(scene.home, "# nothing\n\n")
    starts_in_vain(scene, {"listen": f'["0.0.0.0:{port}"]', "keys_file": f'"{empty}"'}, "peer.keys_file")
    starts_in_vain(scene, {"kelpds": f'["192.0.2.1:{port}"]'}, "peer.kelpds", "peer.keys_file")


@promise("peers")
def a_file_of_keys_that_is_not_one_stops_the_start_by_its_line_and_tells_no_key(scene: Scene) -> None:
    scene.volumes()
    port = process.free_ports(1)[0]
    good, key = f"1 {SECRETS[1]}\n", SECRETS[7]

    def in_vain(text: str, *sentences: str, mode: int = 0o600) -> None:
        file = keys_file(scene.home, text, mode)
        starts_in_vain(scene, {"listen": f'["127.0.0.1:{port}"]', "keys_file": f'"{file}"'}, "peer.keys_file", *sentences)

    for mode in (0o604, 0o644, 0o602, 0o601, 0o666):
        in_vain(good, "peers.keys", "all users may use it", mode=mode)
    for line, why in ((key, "ID HEX"), (f"0 {key}", "ID HEX"), (f"4294967296 {key}", "ID HEX"), (f"-2 {key}", "ID HEX"),
                      (f"two {key}", "ID HEX"), (f"2:{key}", "ID HEX"), (f"2\0{key}", "ID HEX"), (f"2 {key}0", "hexadecimal"),
                      (f"2 {key}zz", "hexadecimal"), (f"2 0x{key}", "hexadecimal"), (f"2 {key} # mine", "hexadecimal"),
                      (f"2 {key} {key}", "hexadecimal"), (f"2 {key[:30]}", "32 to 512"), (f"2 {key * 9}", "32 to 512"),
                      (f"1 {key}", "earlier line")):
        in_vain(f"# keys\n\n{good}{line}\n", "line 4 ", why)
        in_vain(f"# keys\r\n\r\n{good}{line}", "line 4 ", why)
    in_vain(good + "#" * 5000, "larger than 4 KiB")
    missing = {"listen": f'["127.0.0.1:{port}"]', "keys_file": f'"{scene.home / "none"}"'}
    starts_in_vain(scene, missing, "peer.keys_file", "No such file")
    starts_in_vain(scene, missing | {"keys_file": f'"{scene.home}"'}, "peer.keys_file", "regular file")
    starts_in_vain(scene, missing | {"keys_file": '"/dev/zero"'}, "peer.keys_file", "regular file")
    os.mkfifo(scene.home / "fifo", 0o600)
    starts_in_vain(scene, missing | {"keys_file": f'"{scene.home / "fifo"}"'}, "peer.keys_file", "regular file")
    os.chmod(scene.home / "fifo", 0o600)
    good_file = keys_file(scene.home, good, 0o640)  # a group is no stranger
    with scene.kelpd(scene.home / "vs", settings={"peer.listen": f"127.0.0.1:{port}", "peer.keys_file": str(good_file)}) as kelpd:
        code, _ = kelpd.read(plain_row(scene)["fid"])
        expect(code in (daemon.OK, daemon.UNAVAILABLE), f"exit code {code}")
