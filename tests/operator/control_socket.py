"""Requests to a kelpd's control socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from scene import daemon


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("kelpd", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(kelpd: daemon.Daemon, method: str, target: str) -> tuple[int, Any]:
    """Status and body; the body as JSON where it is some."""
    connection = UnixConnection(f"{kelpd.run_dir}/control.sock")
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    kind = answer.getheader("Content-Type", "")
    return answer.status, json.loads(body) if kind == "application/json" else body


def setting(kelpd: daemon.Daemon, key: str) -> dict[str, Any]:
    """The item of /config."""
    return next(item for item in ask(kelpd, "GET", "/config")[1]["items"] if item["key"] == key)
