"""Clients of the sidecar's HTTP API without manners: nonsense, floods, those that are slow, stalled or many. See docs/api.md.

--full: ten thousand connections.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scene import Scene, Skipped, expect, promise, wait_for
from sidecar_target import LARGE, Target, answers, ending_target, in_turns, large_needle, target

HEAD_LIMIT = 16 * 1024


@contextlib.contextmanager
def flooded(one: Target, raw: bytes, count: int) -> Iterator[list[int]]:
    """By clients that send this again and again, and take all that comes: so many bytes each."""
    taken = [0] * count

    def send(talk: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk.sendall(raw)

    def take(talk: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while got := len(talk.recv(1 << 20)):
                taken[number] += got

    talks = []
    for _ in range(count):
        talk = socket.socket()
        # As on a network: in the segments of loopback requests come by lots, with gaps in between.
        talk.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        talk.connect(("127.0.0.1", one.port))
        talks.append(talk)
    threads = [threading.Thread(target=send, args=(talk,)) for talk in talks]
    threads += [threading.Thread(target=take, args=(talk, number)) for number, talk in enumerate(talks)]
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        for talk in talks:
            with contextlib.suppress(OSError):
                talk.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for talk in talks:
            talk.close()


@promise("sidecar")
def parameters_without_sense_are_refused_with_a_sentence(scene: Scene) -> None:
    with target(scene) as one:
        fid = one.row["fid"]
        huge = "9" * 4000
        queries = ["", "?", "file_id", "file_id=", "file_id=%", "file_id=%00", f"file_id={fid}%00", "file_id=%zz", "file_id=..%2F..",
                   f"file_id={fid}&file_id={fid}", f"file_id={huge}", f"file_id={fid}&volume=1", "file_id=" + "%41" * 3000]
        for name in ("volume", "needle", "cookie"):
            rest = "&".join(f"{other}=1" for other in ("volume", "needle", "cookie") if other != name)
            queries += [rest] + [f"{rest}&{name}={value}" for value in
                                 ("", "-1", "+1", " 1", "1 ", "1.5", "1e3", "0x", "0xg", "x", huge, "1%00", "%31%zz", "1&" + name + "=1")]
        for name in ("offset", "size"):
            queries += [f"file_id={fid}&{name}={value}" for value in
                        ("", "-1", "%2B1", "0x10", "1k", "18446744073709551616", huge, "1%00", "1&" + name + "=1")]
        queries += [f"file_id={fid}&offset=18446744073709551615&size=1", f"file_id={fid}&format=xml",
                    f"file_id={fid}&" + "&".join(f"p{i}=1" for i in range(40))]
        for query in queries:
            raw = f"GET /read?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            said = one.say(raw)
            if " " in query:  # then it is no request at all
                expect(said[0][0] == 400, f"{query[:60]!r}: {said[0][0]}")
                continue
            expect(len(said) == 1 and said[0][0] == 400, f"{query[:60]!r}: {[answer[0] for answer in said]}")
            sentence = json.loads(said[0][2])["error"]
            expect(10 < len(sentence) < 200, f"{query[:60]!r}: {sentence!r}")
        for offset in (1 << 63, (1 << 64) - 1):
            status, _ = one.get(f"/read?file_id={fid}&offset={offset}")
            expect(status == 416, f"an offset of {offset}: {status}")


@promise("sidecar")
def what_is_no_request_is_refused_and_the_connection_ends(scene: Scene) -> None:
    with target(scene) as one:
        host = b"Host: x\r\n"
        for raw in (b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n" + host + b"\r\n", b"GET / HTTP/1.1\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET /health HTTP/1.1\r\n" + host + b"a\x00b: c\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /read HTTP/1.1\r\n" + host + host + b"\r\n",
                    b"POST /read HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n\r\nhello",
                    b"GET /read HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                    b"GET /read HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"):
            said = one.say(raw + b"GET /health HTTP/1.1\r\n" + host + b"\r\n")
            expect(len(said) == 1 and said[0][0] == 400, f"{raw[:40]!r}: {[answer[0] for answer in said]}")
            expect("error" in json.loads(said[0][2]) and said[0][1].get("Connection") == "close", f"{raw[:40]!r}: {said[0]}")
        generator = random.Random(scene.seed)
        for _ in range(300):
            with one.connect() as talk, contextlib.suppress(OSError):
                talk.sendall(generator.randbytes(generator.randrange(1, 3000)) + b"\r\n\r\n")
                talk.shutdown(socket.SHUT_WR)
                expect(all(answer[0] == 400 for answer in answers(talk)), "random bytes are answered otherwise")


@promise("sidecar")
def requests_in_one_piece_in_many_or_of_old_versions_are_answered(scene: Scene) -> None:
    with target(scene) as one:
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        bad = b"GET /read?file_id=x HTTP/1.1\r\nHost: x\r\n\r\n"
        said = one.say(get + bad + b"\r\n" + get + b"HEAD /health HTTP/1.0\r\n\r\n".replace(b"HEAD", b"GET") + get)
        expect([answer[0] for answer in said] == [200, 400, 200, 200], f"pipelined: {[answer[0] for answer in said]}")
        said = one.say(f"GET http://other.example:80{one.read} HTTP/1.1\r\nHost: other.example\r\n\r\n".encode())
        expect(said[0][0] == 200, f"an absolute URI: {said[0][0]}")
        with one.connect() as talk:
            for byte in get:
                talk.sendall(bytes([byte]))
            status, _, body = next(answers(talk))
            expect(status == 200 and len(body) == one.row["size"], f"byte by byte: {status}")


@promise("sidecar")
def heads_without_end_are_refused_and_take_no_memory(scene: Scene) -> None:
    with target(scene) as one:
        one.serves()
        before = one.rss_kib()
        for raw, status in ((b"GET /" + b"a" * (8 << 20), 414), (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Flood: y\r\n" * (1 << 18), 431),
                            (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (8 << 20), 431),
                            (b"GET /?" + b"a" * (HEAD_LIMIT + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414)):
            for _ in range(5):
                said = one.say(raw)
                expect(len(said) == 1 and said[0][0] == status, f"{raw[:30]!r}...: {[answer[0] for answer in said]}, expected {status}")
        grown = one.rss_kib() - before
        expect(grown < 8 << 10, f"kelpd has grown by {grown} KiB")


@promise("sidecar")
def empty_lines_without_end_are_refused_and_take_no_memory(scene: Scene) -> None:
    with target(scene) as one:
        one.serves()
        before = one.rss_kib()
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        said = one.say((b"\r\n\r\n" + get) * 3)
        expect([answer[0] for answer in said] == [200] * 3, f"two empty lines in front: {[answer[0] for answer in said]}")
        for count in (20, 1 << 23):
            said = one.say(b"\r\n" * count)
            expect(len(said) == 1 and said[0][0] == 400, f"{count} empty lines: {[answer[0] for answer in said]}")
            expect("empty lines" in json.loads(said[0][2])["error"], f"{count} empty lines: {said[0][2]!r}")
        with one.connect() as talk:  # one after the other
            with contextlib.suppress(OSError):
                for _ in range(100):
                    talk.sendall(b"\r\n")
                    time.sleep(0.01)
            expect([answer[0] for answer in answers(talk)] == [400], "trickled empty lines are not refused")
        with flooded(one, b"\r\n" * 30_000, 3):
            for _ in range(20):
                one.serves()
        grown = one.rss_kib() - before
        expect(grown < 8 << 10, f"kelpd has grown by {grown} KiB")


@promise("sidecar")
def files_that_are_not_ours_are_not_cleaned_up(scene: Scene) -> None:
    with target(scene) as one:
        victim = scene.home / "victim"
        victim.write_text("still here")
        link = scene.home / "link"
        link.symlink_to(victim)
        for path in (victim, link, f"{scene.home}/run/../victim", "..", "/", "victim", "%2e%2e%2fvictim", "x" * 5000):
            status, body = one.get(f"/cleanup?temp_file={path}", "DELETE")
            expect(status == 400 and "error" in json.loads(body), f"{str(path)[:40]}: {status}")
        expect(victim.read_text() == "still here" and link.is_symlink(), "a file is gone")


@promise("sidecar")
def temporary_files_are_bounded_and_nothing_else_in_their_directory_is_touched(scene: Scene) -> None:
    folder = scene.home / "hand-over"
    folder.mkdir(mode=0o750)
    (folder / "notes").write_text("somebody's")
    (folder / ("kelp-" + "a" * 32)).write_text("left by a crash")
    with target(scene, temp_dir=str(folder), temp_min_bytes=1, temp_max_bytes=1 << 20) as one:
        expect({path.name for path in folder.iterdir()} == {"notes"}, "the start does not clean up what is its own, or does more")
        offered: list[Path] = []
        for _ in range((1 << 20) // one.row["size"] + 10):
            status, headers, body = one.say(f"GET {one.read} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())[0]
            expect(status == 200 and hashlib.sha256(body).hexdigest() == one.row["sha256"], f"the body beside a file: {status}")
            if "X-Temp-File" in headers:
                offered.append(Path(headers["X-Temp-File"]))
                expect(headers["X-Use-Temp-File"] == "true", "X-Use-Temp-File is missing")
                expect(offered[-1].read_bytes() == body and offered[-1].stat().st_mode & 0o137 == 0, f"{offered[-1]}")
        held = sum(path.stat().st_size for path in folder.iterdir() if path.name != "notes")
        expect(0 < held <= 1 << 20 and len(offered) == (1 << 20) // one.row["size"], f"{held} bytes in {len(offered)} files")
        (folder / "link").symlink_to(offered[0])
        for path in (f"{folder}/notes", f"{folder}/link", f"{folder}/../hand-over/{offered[0].name}", f"{folder}//{offered[0].name}",
                     offered[0].name, f"{folder}/", f"{offered[0]}%00"):
            expect(one.get(f"/cleanup?temp_file={path}", "DELETE")[0] == 400, f"{path} is cleaned up")
        expect(one.get(f"/cleanup?temp_file={str(offered[0]).replace('/', '%2F')}", "DELETE")[0] == 200, "the first file is not removed")
        expect(not offered[0].exists() and one.get(f"/cleanup?temp_file={offered[0]}", "DELETE")[0] == 404, "it is still there")
        wait_for("the rest to expire", lambda: {path.name for path in folder.iterdir()} == {"notes", "link"}, one.kelpd, 20)


@promise("sidecar")
def those_that_never_finish_a_request_are_closed_and_others_are_served(scene: Scene) -> None:
    with in_turns(scene) as turns:
        one = turns.one
        for number in turns.rounds(2):
            with contextlib.ExitStack() as held:
                slow = [held.enter_context(one.connect()) for _ in range(500)]
                began = time.monotonic()
                while time.monotonic() - began < 9:
                    for talk in slow:
                        with contextlib.suppress(OSError):
                            talk.sendall(b"GET /read"[:1] if time.monotonic() - began < 1 else b"x")
                    turns.take()
                    time.sleep(0.2)
                due = 500 * (number + 1)
                wait_for("the slow ones to be closed", lambda: one.stats()["connections"]["timed_out"] >= due, one.kelpd, 8)
                said = b""
                with contextlib.suppress(OSError):
                    said = slow[0].recv(4096)
                expect(said.startswith(b"HTTP/1.1 408"), f"a slow one is told {said[:40]!r}")
        turns.expect_at_most(2)


@promise("sidecar")
def those_that_do_not_read_their_answers_hold_nobody_up(scene: Scene) -> None:
    with in_turns(scene) as turns:
        one = turns.one
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        before = one.rss_kib()
        with contextlib.ExitStack() as held:
            for _ in range(400):
                talk = held.enter_context(one.connect())
                talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                talk.sendall(get * 100)  # 4 MB of answers, none of which is taken
            time.sleep(1)
            for _ in turns.rounds(2):
                turns.take(9)
            shed = one.stats()["connections"]["shed"]
            grown = one.rss_kib() - before
        turns.expect_at_most(2)
        expect(grown < 80 << 10, f"kelpd has grown by {grown} KiB")
        expect(shed > 0, "400 clients hold more slabs than there are, and none was closed for others")


def taken_steadily(one: Target, count: int, bytes_per_s: int) -> tuple[list[bytes], float]:
    """What came to so many clients, each of which takes its answer at this rate; and the longest that they all paused."""
    get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    got = [bytearray() for _ in range(count)]
    with contextlib.ExitStack() as held:
        left: dict[int, socket.socket] = {}
        for number in range(count):
            talk = socket.socket()
            held.enter_context(talk)
            talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
            talk.connect(("127.0.0.1", one.port))
            talk.sendall(get)
            talk.setblocking(False)
            left[number] = talk
        began = last = time.monotonic()
        longest = 0.0
        while left and last - began < 60:
            for number, talk in list(left.items()):
                may_have = int((last - began) * bytes_per_s) + 1
                while len(got[number]) < may_have:
                    try:
                        part = talk.recv(min(64 << 10, may_have - len(got[number])))
                    except BlockingIOError:
                        break
                    except OSError:
                        part = b""
                    got[number] += part
                    if not part:
                        del left[number]
                        break
            time.sleep(0.02)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
    return [bytes(each) for each in got], longest


@promise("sidecar")
def those_that_take_large_answers_steadily_get_them_whole_however_many(scene: Scene) -> None:
    folder, row = large_needle(scene)
    with ending_target(scene, row=row, volumes=folder) as one:
        for _ in range(5):
            got, paused_s = taken_steadily(one, 60, 1 << 20)
            bodies = [each.partition(b"\r\n\r\n")[2] for each in got]
            whole = sum(hashlib.sha256(body).hexdigest() == row["sha256"] for body in bodies)
            print(f"     {whole} of 60 are whole, no pause was longer than {paused_s:.2f} s")
            # A machine that stood still for so long made clients of the other kind of them.
            if whole == len(got) or paused_s < 0.3:
                break
        others = [(each[:12], len(body)) for each, body in zip(got, bodies) if len(body) != LARGE]
        expect(whole == len(got), f"{whole} of {len(got)} are whole, the others: {others}")
        one.serves()


@promise("sidecar")
def those_that_send_requests_without_end_leave_others_their_turns_and_kelpd_its_end(scene: Scene) -> None:
    with ending_target(scene) as one:
        requests = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        with flooded(one, requests, 3) as taken:
            wait_for("the flood", lambda: min(taken) > 1 << 20, one.kelpd, 60)
            began = time.monotonic()
            for _ in range(20):
                one.serves()
            served_s = time.monotonic() - began
            began = time.monotonic()
            code = one.kelpd.child.stop(30)
            took_s = time.monotonic() - began
        print(f"     20 answers beside the flood in {served_s:.2f} s, the end in {took_s:.2f} s")
        expect(served_s < 15, f"20 answers beside the flood take {served_s:.1f} s")
        expect(code == 0, f"kelpd ends with {code} in a flood")
        expect(took_s < 12, f"kelpd takes {took_s:.1f} s to end in a flood")


@promise("sidecar")
def those_that_have_sent_a_second_request_get_the_first_answer_whole_at_the_end(scene: Scene) -> None:
    folder, row = large_needle(scene)
    with ending_target(scene, {"daemon.drain_timeout_ms": 40_000}, row, folder) as one:
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n".encode()
        with contextlib.ExitStack() as held:
            talks = []
            for last in (b"", b"Connection: close\r\n"):
                talk = held.enter_context(socket.socket())
                talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
                talk.settimeout(30)
                talk.connect(("127.0.0.1", one.port))
                talk.sendall(get + last + b"\r\n")
                talks.append((talk, talk.recv(1000)))
            for talk, _ in talks:  # nobody reads them before the first is answered
                talk.sendall(get + b"\r\n")
            for number, (talk, start) in enumerate(reversed(talks)):
                if number == 1:
                    one.kelpd.child.process.send_signal(signal.SIGTERM)
                    time.sleep(0.5)
                whole = bytearray(start)
                with contextlib.suppress(ConnectionError):
                    while part := talk.recv(16 << 10):
                        whole += part
                        time.sleep(0.001)  # so that most of it is in the kernel when the last is given to it
                body = whole.partition(b"\r\n\r\n")[2]
                expect(hashlib.sha256(body).hexdigest() == row["sha256"], f"connection {number}: {len(body)} bytes of {LARGE}")
        code = one.kelpd.child.process.wait(30)
        expect(code == 0, f"kelpd ends with {code}")


@promise("sidecar")
def those_that_leave_in_the_middle_leave_nothing_behind(scene: Scene) -> None:
    with target(scene) as one:
        one.serves()
        before = one.descriptors()
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        generator = random.Random(scene.seed)
        for turn in range(600):
            talk = one.connect()
            talk.sendall((get * 3)[:generator.randrange(1, 3 * len(get))])
            if turn % 3 == 0:  # a reset instead of an end
                talk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            elif turn % 3 == 1:
                talk.shutdown(socket.SHUT_WR)
            talk.close()
        wait_for("the connections to be gone", lambda: one.descriptors() <= before, one.kelpd)
        wait_for("none to be counted but ours", lambda: one.stats()["connections"]["open"] == 1, one.kelpd)


@promise("sidecar")
def beyond_the_most_connections_idle_ones_make_room(scene: Scene) -> None:
    with target(scene, max_connections=50) as one, contextlib.ExitStack() as held:
        idle = [held.enter_context(one.connect()) for _ in range(200)]
        for _ in range(20):
            one.serves()
        counts = one.stats()["connections"]
        expect(counts["open"] <= 50 and counts["shed"] >= 150, f"{counts}")
        idle[0].settimeout(5)
        expect(idle[0].recv(100) == b"", "the first of them is not closed")


@promise("sidecar")
def ten_thousand_connections_are_held_and_given_back(scene: Scene) -> None:
    count = 10_000 if scene.full else 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        raise Skipped(f"{count} connections need as many descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    with in_turns(scene) as turns:
        one = turns.one
        one.serves()
        before, descriptors = one.rss_kib(), one.descriptors()
        with contextlib.ExitStack() as held:
            for _ in range(count):
                held.enter_context(one.connect())
            wait_for("all of them", lambda: one.stats()["connections"]["open"] >= count, one.kelpd)
            for _ in turns.rounds(2):
                turns.take(9)
            each = (one.rss_kib() - before) / count
        turns.expect_at_most(2)
        expect(each < 2, f"a connection takes {each:.2f} KiB")
        wait_for("their descriptors", lambda: one.descriptors() <= descriptors, one.kelpd)


@promise("sidecar")
def ten_thousand_idle_and_two_hundred_slow_ones_are_hardly_felt(scene: Scene) -> None:
    """In full for 60 s; slow ones take a few bytes of long answers now and then, or send a request byte by byte."""
    idle, slow, seconds = (10_000, 200, 60) if scene.full else (1000, 50, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < idle + slow + 200:
        raise Skipped(f"{idle} connections need as many descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, idle + slow + 200), hard))
    with in_turns(scene) as turns, contextlib.ExitStack() as held:
        one = turns.one
        get = f"GET {one.read} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        before = one.rss_kib()
        for _ in range(idle):
            held.enter_context(one.connect())
        talks = [held.enter_context(one.connect()) for _ in range(slow)]
        for number, talk in enumerate(talks):
            talk.setblocking(False)
            if number % 2:
                talk.sendall(get * 20)
        for _ in turns.rounds(2):
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                for number, talk in enumerate(talks):
                    with contextlib.suppress(OSError):
                        if number % 2:
                            talk.recv(100)
                        else:
                            talk.send(b"G")
                turns.take()
        grown = one.rss_kib() - before
        print(f"     kelpd has grown by {grown} KiB")
        turns.expect_at_most(2)
        expect(grown < 100 << 10, f"kelpd has grown by {grown} KiB")
