"""Stand-ins for a master and for volume servers that misbehave: asked for by name, in tests and benchmarks only.

Each listens on a port of its own of 127.0.0.1 and counts the requests it gets. Threads of this process, ended by close().
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import weed_server  # noqa: E402

LORIS_PERIOD_S = 0.1


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # with the query
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, **changed: str | None) -> bytes:
        """Status line and headers. `changed`: other values, None leaves one out; "_" stands for "-"."""
        headers: dict[str, str | None] = {"Content-Length": str(len(self.body))} | dict(self.headers)
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        lines = [f"HTTP/1.1 {self.status} As It Is"] + [f"{name}: {value}" for name, value in headers.items()
                                                        if value is not None]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def whole(self) -> bytes:
        return self.head() + self.body


class Connection:
    """One connection of a client, as a behaviour sees it."""

    def __init__(self, sock: socket.socket, ended: threading.Event) -> None:
        self.sock = sock
        self.ended = ended
        self.received = b""

    def request(self) -> Request | None:
        """The next one; None when the client is gone. Bodies of requests are not expected."""
        while b"\r\n\r\n" not in self.received:
            more = self.sock.recv(65536)
            if not more:
                return None
            self.received += more
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return Request(method, path, {name.strip().lower(): value.strip() for name, _, value in pairs})

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes) -> None:
        """One byte at a time."""
        for at in range(len(data)):
            if self.ended.wait(LORIS_PERIOD_S):
                break
            self.send(data[at:at + 1])

    def stall(self) -> None:
        """Until the client hangs up, or the test ends. Says nothing, and reads what comes."""
        self.sock.settimeout(0.5)
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.sock.recv(65536):
                    return

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        self.sock.close()


Behaviour = Callable[[Connection, Request], None]


class StandIn:
    """A port that answers every request as `behave` does. A context manager."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.hits = 0
        self.paths: list[str] = []
        self.ended = threading.Event()
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.url = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.ended.set()
        with self.lock, contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        with self.lock:
            for sock in self.open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock, self.ended)
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := connection.request()) is not None:
                with self.lock:
                    self.hits += 1
                    self.paths.append(request.path)
                self.behave(connection, request)
        with self.lock:
            self.open.discard(sock)
        sock.close()


class Master:
    """What a master's look-up says: `where` names the servers of each volume."""

    def __init__(self, where: Mapping[int, list[str]]) -> None:
        self.where = where

    def __call__(self, connection: Connection, request: Request) -> None:
        url = urllib.parse.urlsplit(request.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/cluster/status":
            answer = Answer(200, json.dumps({"IsLeader": True}).encode())
        elif url.path == "/dir/lookup":
            text = (query.get("fileId") or query.get("volumeId") or [""])[0].partition(",")[0]
            servers = self.where.get(int(text) if text.isdigit() else -1)
            body: dict[str, object] = {"volumeOrFileId": text}
            if servers:
                body["locations"] = [{"url": server, "publicUrl": server, "dataCenter": "DefaultDataCenter"}
                                     for server in servers]
            else:
                body["error"] = f"volume id {text} not found"
            answer = Answer(200 if servers else 404, json.dumps(body).encode())
        else:
            answer = Answer(404)
        connection.send(replace(answer, headers={"Content-Type": "application/json"}).whole())


# ---- volume servers -----------------------------------------------------------------------------------------------------


class Honest:
    """What the volume server at `origin` answers; the start of every lie."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def __call__(self, request: Request) -> Answer:
        passed = {name: value for name, value in request.headers.items() if name in ("range", "accept-encoding", "authorization")}
        status, body, headers = weed_server.http_exchange(request.method, f"{self.origin}{request.path}", headers=passed,
                                                          timeout_s=10)
        kept = ("Etag", "Content-Range", "Accept-Ranges", "Content-Encoding", "Content-Type", "Last-Modified")
        return Answer(status, body, {name: value for name in kept if (value := headers.get(name))})


def flipped(body: bytes) -> bytes:
    """The same size, another byte in the middle. A HEAD's answer has none."""
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]


def never_answers(connection: Connection, request: Request) -> None:
    connection.stall()


def behaviours(honest: Honest, elsewhere: str) -> dict[str, Behaviour]:
    """By name. `elsewhere` is where redirects lead: nobody may follow them."""

    def told(tell: Callable[[Connection, Answer], None]) -> Behaviour:
        return lambda connection, request: tell(connection, honest(request))

    def says(make: Callable[[Answer], bytes], *, closes: bool = False) -> Behaviour:
        def behave(connection: Connection, request: Request) -> None:
            connection.send(make(honest(request)))
            if closes:
                connection.close()
        return behave

    def status(code: int, *, closes: bool = False) -> Behaviour:
        return says(lambda answer: Answer(code, b"wrong").whole(), closes=closes)

    def redirect(code: int) -> Behaviour:
        def behave(connection: Connection, request: Request) -> None:
            connection.send(Answer(code, b"", {"Location": f"http://{elsewhere}{request.path}"}).whole())
        return behave

    def another_range(answer: Answer) -> bytes:
        """The right number of bytes, and it says that they are from elsewhere."""
        given = answer.headers.get("Content-Range", f"bytes 0-{len(answer.body) - 1}/{len(answer.body)}")
        start, size = int(given.split()[1].partition("-")[0]), len(answer.body)
        start = 0 if start else 7
        total = max(int(given.rpartition("/")[2]), start + size)
        return replace(answer, status=206).head(Content_Range=f"bytes {start}-{start + size - 1}/{total}") \
            + flipped(answer.body)

    def whole_for_a_part(connection: Connection, request: Request) -> None:
        headers = {name: value for name, value in request.headers.items() if name != "range"}
        connection.send(honest(replace(request, headers=headers)).whole())

    def chunks(answer: Answer, size_line: Callable[[int], str]) -> bytes:
        parts = [answer.body[at:at + 1000] for at in range(0, len(answer.body), 1000)] + [b""]
        return answer.head(Content_Length=None, Transfer_Encoding="chunked") + b"".join(
            f"{size_line(len(part))}\r\n".encode() + part + b"\r\n" for part in parts)

    def slow_body(connection: Connection, answer: Answer) -> None:
        connection.send(answer.head())
        connection.drip(answer.body)

    def cut_and_open(connection: Connection, answer: Answer) -> None:
        connection.send(answer.head(Content_Length=str(len(answer.body) + 100)) + answer.body)
        connection.stall()

    def cut_and_reset(connection: Connection, answer: Answer) -> None:
        connection.send(answer.head() + answer.body[:len(answer.body) // 2])
        time.sleep(0.05)
        connection.reset()

    def bomb(answer: Answer) -> bytes:
        body = gzip.compress(bytes(64 << 20))
        return replace(answer, body=body).head(Content_Encoding="gzip", Content_Length=str(len(body))) + body

    def endless_continue(connection: Connection, request: Request) -> None:
        while not connection.ended.wait(0.001):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 20)

    lies: dict[str, Behaviour] = {
        "sends one byte per 100 ms": told(lambda connection, answer: connection.drip(answer.whole())),
        "sends one byte of the body per 100 ms": told(slow_body),
        "never answers": never_answers,
        "never stops saying 100 Continue": endless_continue,
        "announces too much and waits": told(cut_and_open),
        "announces too much and closes": says(
            lambda answer: answer.head(Content_Length=str(len(answer.body) + 100)) + answer.body, closes=True),
        "announces too little": says(lambda answer: answer.head(Content_Length=str(len(answer.body) - 100)) + answer.body),
        "sends another answer behind the body": says(
            lambda answer: answer.whole() + replace(answer, body=flipped(answer.body)).whole()),
        "announces no length and cuts": says(
            lambda answer: answer.head(Content_Length=None, Connection="close") + answer.body[:-100], closes=True),
        "announces two lengths": says(
            lambda answer: answer.head(content_length=str(len(answer.body) - 100)) + answer.body, closes=True),
        "announces a length below zero": says(lambda answer: answer.head(Content_Length="-1") + answer.body, closes=True),
        "sends garbage": says(lambda answer: bytes(range(256)) * 64, closes=True),
        "sends nothing": says(lambda answer: b"", closes=True),
        "closes in mid-body": says(lambda answer: answer.head() + answer.body[:len(answer.body) // 2], closes=True),
        "resets in mid-body": told(cut_and_reset),
        "answers 500": status(500),
        "answers 502 and closes": status(502, closes=True),
        "answers 503": status(503),
        "answers 418": status(418),
        "answers 204": says(lambda answer: Answer(204).head(Content_Length=None)),
        "answers another range": says(another_range),
        "answers with the whole instead of a part": whole_for_a_part,
        "answers in chunks": says(lambda answer: chunks(answer, lambda size: f"{size:x};extension=1")),
        "answers in chunks whose sizes are wrong": says(lambda answer: chunks(answer, lambda size: f"{size + 3:x}"), closes=True),
        "answers in chunks whose sizes are endless": says(lambda answer: chunks(answer, lambda size: "f" * 5000), closes=True),
        "has headers of 1 MiB": says(lambda answer: answer.head(X_Large="x" * (1 << 20)) + answer.body),
        "has 20 000 headers": says(lambda answer: answer.head(**{f"X-{i}": "x" for i in range(20000)}) + answer.body),
        "never ends its headers": told(lambda connection, answer: (
            connection.send(b"HTTP/1.1 200 OK\r\n" + b"X-More: x\r\n" * 1000), connection.stall())[1]),
        "has another ETag": says(lambda answer: answer.head(Etag='"00c0ffee"') + flipped(answer.body)),
        "has one wrong byte": says(lambda answer: answer.head() + flipped(answer.body)),
        "sends a gzip bomb": says(bomb),
        "says gzip of what is none": says(lambda answer: answer.head(Content_Encoding="gzip") + answer.body),
    }
    return lies | {f"redirects with {code}": redirect(code) for code in (301, 302, 303, 307, 308)}


# They take a read's time away, so that there may be none left for a replica.
STALLING = frozenset({"sends one byte per 100 ms", "sends one byte of the body per 100 ms", "never answers",
                      "announces too much and waits", "never stops saying 100 Continue", "never ends its headers"})
