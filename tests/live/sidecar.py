#!/usr/bin/env python3
"""The sidecar's HTTP API against a real weed: every answer of /read beside the volume server's own.

One volume server whose files kelpd reads, and one that it asks over HTTP. Needles of all shapes (plain, empty, named,
compressed, large) are asked for in all forms, whole, in parts, by Range, with conditions and by HEAD; then the commands of
the old sidecar as they were printed, the marks that make a mount use an answer, and what must not be answered with 200.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402

COOKIE = 0x637037D6
MARK = "X-RDMA-Used"


@dataclass(frozen=True)
class Needle:
    vid: int
    key: int
    body: bytes
    what: str

    @property
    def fid(self) -> str:
        return f"{self.vid},{self.key:02x}{COOKIE:08x}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(address: str, target: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, target, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


class Comparison:
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster, say: process.Progress) -> None:
        self.programs, self.home, self.cluster, self.say = programs, home, cluster, say
        self.needles: list[Needle] = []
        self.broken: list[str] = []
        self.compared = 0
        self.port = process.free_ports(1)[0]
        self.sidecar = f"127.0.0.1:{self.port}"

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def kelpd(self, *flags: str) -> daemon.Daemon:
        server = self.cluster.volume_servers[0]
        return daemon.Daemon(self.programs, self.home, None, volume_servers={server.url: [server.directory]},
                             flags=["--master", self.cluster.master, "--sidecar", self.sidecar, *flags])

    def store(self) -> None:
        """One volume on each server, and the same needles in both."""
        for server in self.cluster.volume_servers:
            self.cluster.grow(1, on=server)
        vids = [self.cluster.volume_files(server)[0].vid for server in self.cluster.volume_servers]
        text = b"".join(random.choice([b"storage ", b"needle ", b"volume ", b"\n"]) for _ in range(9000))
        for vid in vids:
            key = 1
            for size in (0, 1, 100, 4096, 65536, 65537, 1 << 20, (1 << 20) + 1, 5_000_001):
                self._keep(vid, key, random.randbytes(size), f"{size} bytes")
                self.cluster.put(self.needles[-1].fid, self.needles[-1].body)
                key += 1
            for body, name, mime in ((text, "long.txt", "text/plain"), (text[:500], "short.txt", "text/plain"),
                                     (random.randbytes(900), "picture.png", "image/png"),
                                     (random.randbytes(900), "page.css", "application/octet-stream"),
                                     (text * 20, "large.txt", "text/plain")):
                self._keep(vid, key, body, f"{name}, {mime}")
                self.cluster.post_file(self.needles[-1].fid, body, name, mime)
                key += 1
        self.local, self.remote = vids

    def _keep(self, vid: int, key: int, body: bytes, what: str) -> None:
        self.needles.append(Needle(vid, key, body, what))

    def weed_answer(self, needle: Needle, method: str, headers: Mapping[str, str]) -> Answer:
        server = self.cluster.locations(needle.vid)[0]
        # Without it Go's client and weed's compression would be in the comparison.
        return ask(server, "/" + needle.fid, method, {"Accept-Encoding": "identity"} | dict(headers))

    def beside_weed(self, needle: Needle, method: str = "GET", headers: Mapping[str, str] | None = None) -> None:
        given = dict(headers or {})
        theirs = self.weed_answer(needle, method, given)
        ours = ask(self.sidecar, f"/read?file_id={needle.fid}", method, given)
        self.compared += 1
        where = f"{method} {needle.fid} ({needle.what}) {given}"
        self.expect(ours.status == theirs.status, f"{where}: {ours.status}, weed says {theirs.status}")
        if theirs.status in (200, 206):
            self.expect(ours.body == theirs.body, f"{where}: other bytes than weed's ({len(ours.body)}, {len(theirs.body)})")
            names = ["Content-Length", "Content-Range", "Etag", "Last-Modified", "Accept-Ranges"]
            # What weed finds by looking into the bytes is not claimed.
            if "," in needle.what:
                names.append("Content-Type")
            for name in names:
                mine = next((value for key, value in ours.headers.items() if key.lower() == name.lower()), None)
                yours = next((value for key, value in theirs.headers.items() if key.lower() == name.lower()), None)
                self.expect(mine == yours, f"{where}: {name} is {mine}, weed says {yours}")

    # ---- the scenes -------------------------------------------------------------------------------------------------

    def every_shape(self) -> None:
        for needle in self.needles:
            self.expect(self.weed_answer(needle, "GET", {}).body == needle.body, f"weed does not serve {needle.fid} as stored")
            plain = self.weed_answer(needle, "HEAD", {}).headers
            etag, modified = plain.get("Etag", ""), plain.get("Last-Modified", "")
            self.beside_weed(needle)
            self.beside_weed(needle, "HEAD")
            self.beside_weed(needle, "HEAD", {"Range": "bytes=1-2"})
            size = len(needle.body)
            for text in ("bytes=0-0", "bytes=0-", f"bytes={size // 2}-{size // 2 + 99}", "bytes=-10", f"bytes={size}-",
                         f"bytes={size + 1}-", "bytes=5-2", f"bytes=0-{size + 7}", "bytes=x-", "lines=0-1", "bytes=-0",
                         f"bytes={max(0, size - 70000)}-", "bytes=1-2-3", "bytes=-"):
                if size:
                    self.beside_weed(needle, "GET", {"Range": text})
            if modified:
                self.beside_weed(needle, "GET", {"If-Modified-Since": modified})
                self.beside_weed(needle, "GET", {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"})
                self.beside_weed(needle, "GET", {"If-Modified-Since": "yesterday"})
            self.beside_weed(needle, "GET", {"If-None-Match": etag})
            self.beside_weed(needle, "HEAD", {"If-None-Match": etag})
            self.beside_weed(needle, "GET", {"If-None-Match": "W/" + etag})
            self.beside_weed(needle, "GET", {"If-None-Match": '"00000001"', "Range": "bytes=0-0"} if size else {})

    def parts(self) -> None:
        """offset and size, in every form of naming a needle: exactly those bytes, or no 200."""
        for needle in self.needles:
            size = len(needle.body)
            hexed = f"volume={needle.vid}&needle=0x{needle.key:x}&cookie=0x{COOKIE:08x}"
            decimal = f"volume={needle.vid}&needle={needle.key}&cookie={COOKIE}"
            names = [f"file_id={needle.fid}", hexed, decimal, f"file_id={needle.vid}%2C{needle.key:02x}{COOKIE:08x}",
                     f"file_id={needle.vid}/{needle.key:02x}{COOKIE:08x}"]
            if needle.key > 1:
                names.append(f"file_id={needle.vid},{needle.key - 1:02x}{COOKIE:08x}_1")
            extents = [(0, 1), (0, size), (size // 3, size // 2), (size - 1, 1), (0, size + 1), (size, 1), (size + 5, 1),
                       (size // 2, 0), (0, 131072), (size - 131072, 131072)]
            for number, (offset, wanted) in enumerate(extents):
                if offset < 0 or size == 0:
                    continue
                name = names[number % len(names)]
                answer = ask(self.sidecar, f"/read?{name}&offset={offset}&size={wanted}&volume_server=http://{self.cluster.server}")
                self.compared += 1
                where = f"/read {needle.fid} ({needle.what}) by {name}, {wanted} bytes from {offset}"
                expected = needle.body[offset:offset + wanted] if wanted else needle.body[offset:]
                if offset + wanted > size:
                    self.expect(answer.status == 416 and str(size) in answer.body.decode() and
                                answer.headers.get("Content-Range") == f"bytes */{size}", f"{where}: {answer.status} {answer.body[:99]!r}")
                else:
                    self.expect(answer.status == 200 and answer.body == expected, f"{where}: {answer.status}, {len(answer.body)} bytes")
                    self.expect(answer.headers.get("Content-Length") == str(len(expected)), f"{where}: Content-Length")

    def nothing_there(self) -> None:
        good = self.needles[3]
        for what, fid, status in (("no such needle", f"{good.vid},ffff{COOKIE:08x}", 404),
                                  ("the wrong cookie", f"{good.vid},{good.key:02x}11111111", 404),
                                  ("no such needle over HTTP", f"{self.remote},ffff{COOKIE:08x}", 404),
                                  ("no such volume", f"4711,01{COOKIE:08x}", 503)):
            began = time.monotonic()
            answer = ask(self.sidecar, f"/read?file_id={fid}&offset=0&size=10&volume_server=http://{self.cluster.server}")
            self.expect(answer.status == status, f"{what}: {answer.status} {answer.body!r}, expected {status}")
            self.expect(answer.headers.get("Content-Type") == "application/json" and "error" in json.loads(answer.body),
                        f"{what}: no sentence in {answer.body!r}")
            self.expect(time.monotonic() - began < 4.9, f"{what}: only after {time.monotonic() - began:.1f} s")
        gone = Needle(good.vid, 99, b"soon gone", "deleted")
        self.cluster.put(gone.fid, gone.body)
        self.expect(ask(self.sidecar, f"/read?file_id={gone.fid}").body == gone.body, "a new needle is not read")
        self.cluster.delete(gone.fid)
        self.expect(ask(self.sidecar, f"/read?file_id={gone.fid}").status == 404, "a deleted needle is read")

    def marks(self, accepts: str, marked: Mapping[str, bool]) -> None:
        for vid, path in ((self.local, "local"), (self.remote, "http")):
            needle = next(one for one in self.needles if one.vid == vid and len(one.body) == 4096)
            headers = ask(self.sidecar, f"/read?file_id={needle.fid}&offset=0&size=4096").headers
            self.expect(headers.get("X-Kelp-Path") == path, f"{accepts}: {headers.get('X-Kelp-Path')}, expected {path}")
            self.expect((headers.get(MARK) == "true") == marked[path], f"{accepts}: by {path} the mark is {headers.get(MARK)}")
            self.expect("rdma" not in headers.get("X-Source", ""), f"{accepts}: X-Source claims {headers.get('X-Source')}")
        health = json.loads(ask(self.sidecar, "/health").body)
        self.expect(health["status"] == "healthy" and health["rdma"]["enabled"] == any(marked.values()),
                    f"{accepts}: /health says {health}")

    def as_printed(self) -> None:
        """The three commands of the old sidecar's README, and what its scripts look for."""
        needle = next(one for one in self.needles if one.vid == self.local and len(one.body) == 4096)
        base = f"http://{self.sidecar}"
        read = (f'curl -s "{base}/read?volume={needle.vid}&needle={needle.key}&cookie={COOKIE}&offset=0&size=1024'
                f'&volume_server=http://localhost:8080"')
        said = [subprocess.run(shlex.split(command), capture_output=True, check=False).stdout
                for command in (f"curl -s {base}/health", f"curl -s {base}/stats", read)]
        self.expect(json.loads(said[0])["rdma"]["enabled"] is True, f"/health: {said[0]!r}")
        self.expect(b'"rdma_enabled":true' in said[1], f"/stats: {said[1]!r}")
        stats = json.loads(said[1])
        for key in ("enabled", "connected", "capabilities", "total_reads", "rdma_reads", "http_fallbacks", "client_type", "timestamp"):
            self.expect(key in stats, f"/stats has no {key}")
        self.expect(said[2] == needle.body[:1024], f"the old /read brought {said[2][:80]!r}")
        about = json.loads(ask(self.sidecar, f"/read?file_id={needle.fid}&format=json").body)
        self.expect(about["success"] is True and about["data_size"] == 4096 and about["data_preview"] == needle.body[:32].hex(),
                    f"format=json: {about}")
        old = ask(self.sidecar, f"/rdma/read?file_id={needle.fid}&size=100")
        self.expect(old.body == needle.body[:100] and old.headers.get("X-RDMA-Bytes-Read") == "100" and
                    {"X-RDMA-Session-ID", "X-RDMA-Duration", "X-RDMA-Transfer-Rate"} <= set(old.headers), f"/rdma/read: {old.headers}")
        bench = json.loads(ask(self.sidecar, f"/benchmark?file_id={needle.fid}&iterations=50&size=2048").body)["benchmark_results"]
        self.expect(bench["successful_ops"] == 50 and bench["total_bytes"] == 50 * 2048, f"/benchmark: {bench}")
        for method in ("GET", "POST"):
            self.expect(json.loads(ask(self.sidecar, "/rdma/ping", method).body)["success"] is True, f"{method} /rdma/ping")
        self.expect(json.loads(ask(self.sidecar, "/rdma/capabilities").body)["max_sessions"] > 0, "/rdma/capabilities")
        self.expect(b"<html>" in ask(self.sidecar, "/").body, "/ is no page")
        for method, path, allow in (("POST", "/read", "GET, HEAD"), ("DELETE", "/health", "GET, HEAD"), ("PUT", "/stats", "GET, HEAD"),
                                    ("GET", "/cleanup", "DELETE"), ("DELETE", "/rdma/ping", "GET, HEAD, POST")):
            answer = ask(self.sidecar, path, method)
            self.expect(answer.status == 405 and answer.headers.get("Allow") == allow, f"{method} {path}: {answer.status} {answer.headers}")
        for query in ("", "?temp_file=", "?temp_file=%2Fetc%2Fpasswd", "?temp_file=..%2F..%2Fetc"):
            self.expect(ask(self.sidecar, "/cleanup" + query, "DELETE").status == 400, f"DELETE /cleanup{query}")

    def kept_alive(self) -> None:
        """Many requests on one connection, and several at once: the answers come in their order."""
        small = [one for one in self.needles if one.vid == self.local and 0 < len(one.body) <= 1 << 20]
        picked = [random.choice(small) for _ in range(200)]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as talk:
            talk.sendall(b"".join(f"GET /read?file_id={one.fid} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for one in picked[:60]))
            stream = talk.makefile("rb")
            for number, one in enumerate(picked):
                if number >= 60:
                    talk.sendall(f"GET /read?file_id={one.fid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                status = stream.readline()
                headers = http.client.parse_headers(stream)
                body = stream.read(int(headers["Content-Length"]))
                self.expect(b"200" in status and body == one.body, f"answer {number} of a connection is wrong: {status!r}")
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as talk:
            large = max(self.needles, key=lambda one: len(one.body) * (one.vid == self.local))
            talk.sendall(f"GET /read?file_id={large.fid} HTTP/1.0\r\n\r\n".encode())
            talk.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda: talk.recv(1 << 16), b""))
            self.expect(said.partition(b"\r\n\r\n")[2] == large.body, "a half-closed HTTP/1.0 client does not get all of it")

    def rewritten(self) -> None:
        """A needle that is written anew while a large body of it is sent: never a mixture."""
        one = Needle(self.local, 77, random.randbytes(12_000_000), "rewritten")
        other = random.randbytes(len(one.body))
        self.cluster.put(one.fid, one.body)
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as talk:
            talk.sendall(f"GET /read?file_id={one.fid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            said = talk.recv(1 << 16)
            self.cluster.put(one.fid, other)
            said += b"".join(iter(lambda: talk.recv(1 << 16), b"")) if len(said) else b""
            body = said.partition(b"\r\n\r\n")[2]
            self.expect(body in (one.body, other) or len(body) < len(one.body), "a mixture of two needles came as one")

    def drained(self) -> None:
        """kelpd is asked to end: who reads gets all of it, who does not is cut off, and nobody new is let in."""
        one = Needle(self.local, 78, random.randbytes(24_000_000), "drained")
        self.cluster.put(one.fid, one.body)
        for reads_on in (True, False):
            with self.kelpd() as kelpd, socket.create_connection(("127.0.0.1", self.port), timeout=20) as talk:
                kelpd.wait_serving([self.local])
                talk.sendall(f"GET /read?file_id={one.fid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                said = talk.recv(1 << 16)
                began = time.monotonic()
                kelpd.child.process.terminate()
                if reads_on:
                    time.sleep(0.5)
                    said += b"".join(iter(lambda: talk.recv(1 << 16), b""))
                    self.expect(said.partition(b"\r\n\r\n")[2] == one.body, f"a drain cuts an answer: {len(said)} bytes came")
                code = kelpd.child.process.wait(20)
                took = time.monotonic() - began
                self.expect(code == 0 and took < 5, f"a drain with a client that {'reads' if reads_on else 'stands still'}: "
                            f"exit code {code} after {took:.1f} s")
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                    self.broken.append("who comes after a drain is let in")

    def killed_server(self) -> None:
        """Without its volume server nothing is attested: no wrong bytes, an answer in time."""
        self.cluster.volume_servers[0].kill()
        needle = next(one for one in self.needles if one.vid == self.local and len(one.body) == 4096)
        began = time.monotonic()
        answer = ask(self.sidecar, f"/read?file_id={needle.fid}&offset=0&size=4096")
        self.expect(answer.status in (503, 504), f"its server is dead: {answer.status}")
        self.expect(time.monotonic() - began < 4.9, f"its server is dead: only after {time.monotonic() - began:.1f} s")


def test(programs: Path, binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], Sequence[str]]:
    with weed.Cluster(binary, home / "weed", volume_servers=2) as cluster:
        all_ = Comparison(programs, home, cluster, say)
        all_.store()
        with all_.kelpd() as kelpd:
            kelpd.wait_serving([all_.local])
            for scene in (all_.every_shape, all_.parts, all_.nothing_there, all_.as_printed, all_.kept_alive, all_.rewritten):
                say(scene.__name__.replace("_", " "))
                scene()
            all_.marks("dataplane", {"local": True, "http": False})
        say("drained")
        all_.drained()
        for accepts, marked in (("any", {"local": True, "http": True}), ("rdma", {"local": False, "http": False})):
            config = home / "accepts.toml"
            config.write_text(f'[sidecar]\nmount_accepts = "{accepts}"\n')
            with all_.kelpd("--config", str(config)) as kelpd:
                kelpd.wait_serving([all_.local])
                all_.marks(accepts, marked)
        with all_.kelpd() as kelpd:
            kelpd.wait_serving([all_.local])
            say("killed server")
            all_.killed_server()
        return {"answers compared": all_.compared}, all_.broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--weed", default=weed.DEFAULT_VERSION)
    args = parser.parse_args()
    random.seed(20261128)
    return verdict.run("sidecar", args.weed, lambda binary, home, say: test(args.programs, binary, home, say))


if __name__ == "__main__":
    sys.exit(main())
