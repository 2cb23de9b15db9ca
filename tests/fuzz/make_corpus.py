#!/usr/bin/env python3
"""Writes seeds for the fuzzers: from the fixtures, the sample configuration, and by hand.

    tests/fuzz/make_corpus.py DIRECTORY      one sub-directory per fuzzer

tests/fuzz/corpus/ was made from these by `scripts/fuzz.sh --merge`. The order of the fields is that of each
fuzzer's opening comment.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
COOKIE = 0x637037D6

FILE_IDS = [
    "3,01637037d6", "3,01637037d6_2", "/3,01637037d6.jpg", "3/01637037d6", "/3/01637037d6/name.jpg",
    "4294967295,ffffffffffffffffffffffff", "1,ffffffffffffffff637037d6_1", "3,01637037d6_", "1,0000000000", ",", "3,",
]  # fmt: skip


def seeds_file_id() -> Iterator[bytes]:
    yield from (text.encode() for text in FILE_IDS)


def seeds_vif() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted(TESTS.glob("fixtures/*/*/*.vif")))
    yield b"{}"
    yield b'{"version": 3, "bytes_offset": 5, "read_only": true, "replication": "001", "dat_file_size": "123"}'
    yield b'{"files": [{"backendType": "s3", "key": "x"}], "version": 3}'
    yield b'{"ecShardConfig": {"dataShards": 10, "parity_shards": 4, "blockSize": "1048576"}, "DestroyTime": 7}'
    yield b'{"version": null, "unknown": [[[{"a": -1.5e3}]]]}'


def seeds_gzip() -> Iterator[bytes]:
    text = b"the same words again and again, " * 40
    noise = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(20))
    members = [gzip.compress(each, level, mtime=0) for each in (text, noise, b"", b"x") for level in (0, 1, 9)]
    members += [members[0] + members[4], members[2] + b"\0", members[1][:-4], b"\x1f\x8b"]
    header = struct.pack("<HHH", 100, 2000, 50)
    yield from (header + member for member in members)


def row_bytes_of(index: Path) -> int:
    return 17 if "v5b" in index.parts else 16


def seeds_index() -> Iterator[bytes]:
    for index in sorted(TESTS.glob("fixtures/*/vs/*.idx")):
        rows = index.read_bytes()[:400]
        width = row_bytes_of(index) - 16
        yield struct.pack("<BHB", width, 50, 0) + rows
        yield struct.pack("<BHB", 1 - width, 1000, 2) + rows + index.with_suffix(".dat").read_bytes()[8:40]
    rows = b"".join(struct.pack(">QIi", n % 5, 1 + n, -1 if n % 3 == 0 else n) for n in range(30))
    yield struct.pack("<BHB", 0, 33, 0) + rows + bytes(48)


def records(data: Path) -> Iterator[bytes]:
    """Each record of a .dat of version 3, without its padding."""
    content = data.read_bytes()
    at = 8
    while at + 16 <= len(content):
        size = max(struct.unpack(">i", content[at + 12 : at + 16])[0], 0)
        end = at + 16 + size + 12
        yield content[at:end]
        at = end + 8 - end % 8


def seeds_needle() -> Iterator[bytes]:
    block = struct.pack(">BBBBHH", 3, 0, 0, 0, 0, 0)
    for data in sorted(TESTS.glob("fixtures/v4b/vs/*.dat")):
        for number, record in enumerate(each for each in records(data) if len(each) < 1500):
            mode = (0, 1, 16, 32)[number % 4]
            yield struct.pack("<BBBHHH", 2, mode, 255, 8 * (number % 3), 2000, number) + block + record
    for version, data in ((1, b"version one"), (2, b"version two"), (3, gzip.compress(b"three" * 50, mtime=0))):
        body = data if version == 1 else struct.pack(">I", len(data)) + data + bytes([version == 3])
        record = struct.pack(">IQi", COOKIE, 5, len(body)) + body + bytes(12)
        yield struct.pack("<BBBHHH", version - 1, 2, 20, 1, 100, 0) + block + record


def section(name: str, lines: str) -> bytes:
    return f"\0[{name}]\n{lines}\n[[target.directory]]\npath = '/'\n".encode()


def flags(*words: str) -> bytes:
    return bytes([len(words)]) + b"".join(bytes([len(word)]) + word.encode() for word in words)


def seeds_config() -> Iterator[bytes]:
    sample = (TESTS.parent / "config" / "kelpd.toml").read_text()
    plain = "\n".join(line for line in sample.splitlines() if line and not line.startswith("#"))
    yield b"\0" + plain.encode() + b'\n[[target.directory]]\npath = "/"\nidx_dir = "/tmp"\n'
    yield section("worker", "cpus = [1]\npolling = 'poll'\nops = 64")
    yield section("client", 'max_data_bytes = "64 KiB"\nsocket_mode = "0600"\nhugepages = "off"')
    yield section("daemon", 'run_dir = "/x\\u00e9"\nlog_level = "debug"')
    yield b"\0target = { rescan_ms = 100, directory = [{ path = '/' }, { path = '/tmp' }] }\nworker.spin_us = 0x10\n"
    yield flags("--volume-dir", "/", "--idx-dir", "/tmp", "--cpus", "0", "--check")
    yield flags("--volume-dir=/", "--run-dir", "run", "--log-level", "error")
    yield flags("--help")


def submission(op: int, needle: int, buffer: int, length: int, **other: int) -> bytes:
    return struct.pack(
        "<IBBHQQIIQQIIQ", 0, op, 0, other.get("flags", 0), 7, needle, 7, COOKIE, other.get("offset", 0), buffer, length,
        other.get("timeout", 0), other.get("extra", 0),
    )  # fmt: skip


def likely(choice: int, needle: int, buffer: int, length: int, *more: int) -> bytes:
    return struct.pack("<BBBHH", 2, choice, needle, buffer, length) + b"".join(struct.pack("<H", each) for each in more)


def seeds_submissions() -> Iterator[bytes]:
    poll = b"\x05\x03"
    yield b"\0" + likely(0, 1, 0, 900) + poll + likely(1, 2, 4096, 300) + likely(2, 0, 0, 0) + poll
    yield b"\1" + b"".join(likely(0, n % 5, n * 3000, 3000) for n in range(8)) + poll * 3
    yield b"\0" + likely(0x30, 3, 100, 5000, 17, 1) + poll + likely(0x40, 1, 0, 10) + likely(0x80, 1, 0, 10) + poll
    yield b"\2" + b"\1" + submission(0, 3, 0, 4000) + poll + b"\1" + submission(1, 1, 65000, 1000) + poll
    yield b"\0" + b"\1" + submission(0, 1, 2**64 - 1, 2**32 - 1, extra=4096) + b"\1" + submission(9, 1, 0, 1) + poll
    yield b"\0" + likely(0, 1, 0, 900) * 5 + b"\x04\xff\xff\xff\xff" + poll
    yield b"\0" + b"\0" + struct.pack("<HB", 512, 64) + submission(0, 1, 0, 100) + poll
    yield b"\0\7" + likely(0, 2, 8, 1800) + b"\6" + struct.pack("<HB", 9, 1) + poll


def attach_request(channels: int, data_bytes: int, entries: int) -> bytes:
    head = b"LKTTACH1" + struct.pack("<HHIQQII", 1, 0, channels, 0, data_bytes, entries, 0)
    return head + b"a program".ljust(64, b"\0") + bytes(32)


def seeds_attach_request() -> Iterator[bytes]:
    for channels, data_bytes, entries in ((1, 4096, 0), (8, 1 << 20, 16), (0, 1, 4), (9, 1, 4), (1, 1 << 40, 5)):
        yield b"\2\0" + attach_request(channels, data_bytes, entries)
    yield b"\6\1" + attach_request(1, 4096, 0)
    yield b"\3\0" + attach_request(2, 4096, 64)
    yield b"\0\3" + b"GET / HTTP/1.1\r\n\r\n"
    yield b"\2\0" + attach_request(1, 4096, 0) + b"more"


def changes(*each: tuple[int, bytes]) -> bytes:
    return bytes([len(each)]) + b"".join(struct.pack("<HB", at, len(what)) + what for at, what in each)


def seeds_attach_reply() -> Iterator[bytes]:
    completion = struct.pack("<IBBHQQIB3x", 1, 0, 1, 0, 0, 9, 9, 1)
    ring = 4096  # the first ring's block; its completions follow 4 submissions
    completions = ring + 512 + 4 * 64
    yield b"\0\0" + changes() + b"\0" + changes((completions, completion))
    yield b"\0\0" + changes() + b"\1" + changes((completions, completion)) + b"\0" + changes((ring + 256, b"\1"))
    yield b"\0\2" + changes() + b"\0" + changes((ring + 260, b"\2"))
    yield b"\0\0" + changes((12, struct.pack("<I", 73)), (96, b"no")) + b""
    yield b"\0\1" + changes((40, struct.pack("<IIII", 3, 40, 8, 16)))
    yield b"\1\0" + changes() + bytes([4, 64, 64, 0, 0])
    yield b"\2\0" + changes() + struct.pack("<H", 100)
    yield b"\4\0" + changes() + b"\0" + changes()


SERVER_ADDRESSES = [
    "10.0.0.1:8080", "http://HOST:80/", "https://a.b-c_d.example:65535", "[::1]:80",
    "http://[2001:DB8::ffff:10.0.0.1]:8080/", "host:8080.18080", "127.1:80", "host:080", "a@b:1", "host:80/path",
    "[::1%eth0]:80", "host%2e:80", "a..b:80",
]  # fmt: skip

LOOKUPS = [
    '{"volumeOrFileId":"3","locations":[{"url":"10.0.0.1:8080","publicUrl":"files.example:80","dataCenter":"dc1",'
    '"grpcPort":18080},{"url":"10.0.0.2:8080"}]}',
    '{"locations":[{"url":"b:1"},{"url":"a:1"},{"url":"B:1.10001"},{"url":"file://x"},{},7,null,[]]}',
    '{"locations":[]}', '{"locations":{}}', '{"locations":null,"error":""}', '{"a":[[[[[[[[[[1e999]]]]]]]]]]}',
    '{"volumeOrFileId":"9","error":"volume id 9 not found"}', "404 page not found", "<html>",
]  # fmt: skip


def seeds_lookup() -> Iterator[bytes]:
    for text in SERVER_ADDRESSES + LOOKUPS:
        yield struct.pack("<H", 200) + text.encode()
    yield from (struct.pack("<H", status) + LOOKUPS[6].encode() for status in (404, 503))


HTTP_ANSWERS = [
    "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/9\r\nEtag: \"9a71bb4c\"\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end", "HTTP/1.1 204 No Content\r\n\r\n", "garbage",
    "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 1\r\n\r\nx",
]  # fmt: skip


def seeds_http_answer() -> Iterator[bytes]:
    for number, text in enumerate(HTTP_ANSWERS):
        yield bytes([number % 4, 3 * number]) + text.encode()
        yield bytes([2, 0]) + text.encode()


def frame(kind: int, body: bytes) -> bytes:
    """Of Wire v1, without its check: the fuzzer mends that."""
    return struct.pack("<HBBI", 8 + len(body), kind, 0, 0) + body


HELLO = struct.pack("<QHHBBHHHI", int.from_bytes(b"KELPWIR1", "little"), 1, 1, 1, 0, 0, 65535, 16, 0) + bytes(96)
FRAMES = {
    0: [frame(1, HELLO), frame(1, HELLO) + frame(3, bytes(32)), frame(3, bytes(32)), frame(5, bytes(120)), b"GET / HTTP/1.1"],
    4: [frame(2, struct.pack("<HHI", 1, 0, 0) + bytes(32)) + frame(4, struct.pack("<HHHHII", 16, 1, 0, 0, 1 << 20, 0) + bytes(32)),
        frame(5, struct.pack("<HH", 2, 0) + b"no" + bytes(114))],
    1: [frame(16, struct.pack("<HBBIQQIIIIQHHI", 1, 1, 0, 3, 1, 0, 7, 4096, 1000, 0, 0, 0, 0, 0)),
        frame(17, struct.pack("<HBBHHIIQQ", 1, 1, 0, 0, 0, 5, 0, 5, 9)), frame(18, bytes(8)) + frame(19, bytes(8)) + frame(21, b"")],
}  # fmt: skip


def seeds_frames() -> Iterator[bytes]:
    for mode, texts in FRAMES.items():
        for number, text in enumerate(texts):
            yield bytes([mode | 1, 7 * number]) + text
            yield bytes([mode | 3, 0]) + text


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__.strip())
        return 2
    for name, seeds in list(globals().items()):
        if not name.startswith("seeds_"):
            continue
        directory = Path(sys.argv[1]) / name.removeprefix("seeds_")
        directory.mkdir(parents=True, exist_ok=True)
        for seed in seeds():
            (directory / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
