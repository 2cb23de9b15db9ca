#!/usr/bin/env python3
"""The live test of attested volumes: a kelpd beside volume servers that unmount, crash, stop, move and vacuum.

In each scene a program reads one needle through the ring without a pause (test_attest_reader), while its volume server
does something. Afterwards every needle is read through the ring and over HTTP: what the ring answers with "ok", the
server must answer with the same bytes. Prints the figures of each scene.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed, weed_server  # noqa: E402
from peers import stands_still  # noqa: E402

SILENCE_S = 10  # after which a server that does not answer is no witness any more
COOKIE = 0x1F2E3D4C


class Reader:
    """test_attest_reader on one needle; its lines are collected by a thread."""

    def __init__(self, lab: Lab, fid: str, watched: list[Path]) -> None:
        expected = lab.home / "expected"
        expected.write_bytes(lab.bodies[fid])
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", lab.programs / "test_attest_reader", lab.kelpd.run_dir, fid, expected, *watched],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def answers(self) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line["event"] == "answer"]

    def last_status(self) -> str:
        answers = self.answers()
        return answers[-1]["status"] if answers else ""

    def wait_for(self, ok: bool, deadline_s: float = 20) -> dict[str, Any]:
        """The answer with which reads became ok, or stopped being it."""
        give_up = time.monotonic() + deadline_s
        while not self.last_status() or (self.last_status() == "ok") is not ok:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise process.LabError(f"reads are {self.last_status()!r} and not {'ok' if ok else 'refused'} "
                                       f"after {deadline_s} s; {self.lines[-5:]}")
            time.sleep(0.002)
        return self.answers()[-1]

    def wait_for_close(self, deadline_s: float = 5) -> list[dict[str, Any]]:
        """The closes seen so far; waits for the first, since a refusal may be told a turn before its close."""
        give_up = time.monotonic() + deadline_s
        while True:
            closes = [line for line in list(self.lines) if line["event"] == "closed"]
            if closes or time.monotonic() > give_up:
                return closes
            time.sleep(0.002)

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
        self.thread.join(10)


class Lab:
    """A cluster of two volume servers with a kelpd that knows both, and the needles stored in them."""

    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster) -> None:
        self.programs = programs
        self.home = home
        self.cluster = cluster
        self.bodies: dict[str, bytes] = {}
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}
        self.first, self.second = cluster.volume_servers
        self.kelpd = daemon.Daemon(programs, home, None, volume_servers={
            self.first.url: [self.first.directory], self.second.url: [self.second.directory]})

    def store(self, count: int) -> None:
        for file in self.cluster.volume_files():
            for key in range(1, count + 1):
                fid = f"{file.vid},{key:x}{COOKIE:08x}"
                self.bodies[fid] = random.randbytes(random.choice([1, 100, 4096, 100_000]))
                self.cluster.put(fid, self.bodies[fid])

    def files(self, vid: int, directory: Path | None = None) -> list[Path]:
        directory = directory or self.first.directory
        return [directory / f"{vid}.idx", directory / f"{vid}.dat"]

    def needle(self, vid: int) -> str:
        return f"{vid},1{COOKIE:08x}"

    @contextlib.contextmanager
    def reading(self, vid: int) -> Iterator[Reader]:
        """A reader that is served when the scene begins; afterwards no byte it got may have been wrong."""
        reader = Reader(self, self.needle(vid), self.files(vid))
        try:
            reader.wait_for(ok=True)
            yield reader
        finally:
            reader.stop()
        wrong = [line for line in reader.lines if line["event"] == "wrong"]
        if wrong:
            self.broken.append(f"{len(wrong)} reads of volume {vid} were ok with other bytes than stored")

    def compare(self, scene: str, servers: list[str] | None = None) -> dict[str, int]:
        """Every needle through the ring and over HTTP of those servers; how the ring answered."""
        counts: dict[str, int] = {}
        for fid in self.bodies:
            code, got = self.kelpd.read(fid)
            counts[str(code)] = counts.get(str(code), 0) + 1
            if code != daemon.OK:
                continue
            answers = [weed.http_call("GET", f"{server}/{fid}?readDeleted=false", timeout_s=5)
                       for server in servers or [self.first.url, self.second.url]]
            if (200, got) not in answers:
                self.broken.append(f"{scene}: {fid} is ok with {len(got)} bytes through the ring, over HTTP "
                                   f"{[(status, len(body)) for status, body in answers]}")
        return counts

    def judge_revocation(self, scene: str, reader: Reader, returned_ns: int | None = None) -> None:
        """From the close on nothing is ok; and nothing that was submitted after `returned_ns`."""
        refused = reader.wait_for(ok=False)
        closes = reader.wait_for_close()
        if not closes:
            self.broken.append(f"{scene}: no close was seen")
            return
        if any(line["next"] == "ok" for line in closes):
            self.broken.append(f"{scene}: a read submitted after the close was seen is ok: {closes}")
        if returned_ns is not None and refused["last_before_ns"] > returned_ns:
            self.broken.append(f"{scene}: a read submitted after the call returned is ok")
        # 0: the reader was refused before it looked for the close.
        delay_us = max(0.0, (refused["done_ns"] - closes[0]["seen_ns"]) / 1000)
        self.figures[scene] = {"close_to_first_refusal_us": round(delay_us, 1), "status": refused["status"]}

    def judge_return(self, scene: str, reader: Reader, since_ns: int) -> None:
        served = reader.wait_for(ok=True)
        self.figures.setdefault(scene, {})["back_after_ms"] = max(0.0, round((served["done_ns"] - since_ns) / 1e6, 1))

    def wait_volumes(self, what: str, probe: Callable[[dict[tuple[int, str], dict[str, Any]]], bool]) -> None:
        def look() -> bool:
            return probe({(volume["id"], volume["volume_server"]): volume for volume in self.kelpd.volumes()})
        process.wait_until(what, look, [self.kelpd.child], 30)


def unmount_and_mount(lab: Lab, vid: int) -> None:
    with lab.reading(vid) as reader:
        lab.cluster.shell(f"volume.unmount -node {lab.first.node} -volumeId {vid}")
        lab.judge_revocation("unmount", reader, time.monotonic_ns())
        if lab.cluster.get(lab.needle(vid))[0] != 404:
            lab.broken.append("unmount: the server still serves the volume, so the scene proves nothing")
        lab.compare("unmount")
        lab.cluster.shell(f"volume.mount -node {lab.first.node} -volumeId {vid}")
        lab.judge_return("unmount", reader, time.monotonic_ns())


def read_only(lab: Lab, vid: int) -> None:
    """A volume loaded read-only: 4.48 then holds no descriptor of .idx, 4.44 one that cannot write."""
    lab.cluster.shell(f"volume.mark -node {lab.first.node} -volumeId {vid} -readonly",
                      f"volume.unmount -node {lab.first.node} -volumeId {vid}", f"volume.mount -node {lab.first.node} -volumeId {vid}")
    with lab.reading(vid) as reader:
        lab.cluster.shell(f"volume.unmount -node {lab.first.node} -volumeId {vid}")
        lab.judge_revocation("unmount of a read-only volume", reader, time.monotonic_ns())
        lab.compare("read-only")
        lab.cluster.shell(f"volume.mount -node {lab.first.node} -volumeId {vid}",
                          f"volume.mark -node {lab.first.node} -volumeId {vid} -writable")
        lab.judge_return("unmount of a read-only volume", reader, time.monotonic_ns())


def vacuum(lab: Lab, vid: int) -> None:
    """With a snapshot by hard links, which keeps the old files' link count above 0."""
    snapshot = lab.home / "snapshot"
    snapshot.mkdir()
    for file in lab.files(vid):
        os.link(file, snapshot / file.name)
    gone = f"{vid},2{COOKIE:08x}"
    lab.cluster.delete(gone)
    del lab.bodies[gone]
    with lab.reading(vid) as reader:
        lab.cluster.vacuum()
        ended = time.monotonic_ns()
        time.sleep(0.3)
        lab.judge_return("vacuum beside a hard-link snapshot", reader, ended)
        refusals = [one for one in reader.answers() if one["status"] != "ok"]
        lab.figures["vacuum beside a hard-link snapshot"]["refused_spells"] = len(refusals)
    lab.compare("vacuum")
    if lab.kelpd.read(gone)[0] != daemon.NOT_FOUND:
        lab.broken.append("vacuum: a deleted needle is not not-found")
    shutil.rmtree(snapshot)


def fix_in_place(lab: Lab, vid: int) -> None:
    with lab.reading(vid) as reader:
        subprocess.run([lab.cluster.weed, "fix", f"-volumeId={vid}", lab.cluster.volume_dir], capture_output=True,
                       env=weed_server.environment(lab.home), timeout=60, check=False)
        ended = time.monotonic_ns()
        lab.judge_return("weed fix in place", reader, ended)
    lab.compare("weed fix")


def ambiguous_and_tiered(lab: Lab, vid: int) -> None:
    """A second collection with the same id, and a .vif as a tiered volume leaves it (simulated: no tier is configured)."""
    stray = lab.cluster.volume_dir / f"stray_{vid}.dat"
    lone = lab.cluster.volume_dir / "987654.vif"
    shutil.copy(lab.files(vid)[1], stray)
    lone.write_text('{"files": [{"backendType": "s3", "backendId": "default", "key": "k", "fileSize": "8"}], "version": 3}')
    server = lab.cluster.server
    lab.wait_volumes("both to be left to the server", lambda all: all.get((987654, server), {}).get("state") == "use_http"
                     and all.get((vid, server), {}).get("state") == "use_http")
    for fid in (lab.needle(vid), lab.needle(987654)):
        code, _ = lab.kelpd.read(fid)
        if code != daemon.USE_HTTP:
            lab.broken.append(f"{fid}: kelpctl read ended with {code}, not use-http")
    lab.compare("ambiguous")
    stray.unlink()
    lone.unlink()
    lab.wait_volumes("the volume to be served again", lambda all: all.get((vid, server), {}).get("state") == "serving")


def torn_write(lab: Lab, vid: int) -> None:
    """What a failed batch fsync leaves behind: .dat truncated, the row still there (simulated with a row of our own)."""
    idx, dat = lab.files(vid)
    row = struct.pack(">QI", 0xABCDEF, (dat.stat().st_size + 4096) // 8) + b"\0" + struct.pack(">i", 100)
    with idx.open("ab") as file:
        file.write(row)
    code, _ = lab.kelpd.read(f"{vid},abcdef{COOKIE:08x}")
    if code == daemon.OK or lab.cluster.get(f"{vid},abcdef{COOKIE:08x}")[0] == 200:
        lab.broken.append("a row beyond the end of .dat is served")
    os.truncate(idx, idx.stat().st_size - len(row))
    lab.wait_volumes("the volume to be served again",
                     lambda all: all.get((vid, lab.cluster.server), {}).get("state") == "serving")
    lab.compare("torn write")


def move(lab: Lab, vid: int) -> None:
    with lab.reading(vid):
        lab.cluster.move_volume(vid, lab.first, lab.second)
        began = time.monotonic()
        lab.wait_volumes("the moved volume to be served from its new server",
                         lambda all: all.get((vid, lab.second.url), {}).get("state") == "serving")
        lab.figures["volume.move"] = {"served_at_the_new_server_ms": round((time.monotonic() - began) * 1000, 1)}
        if lab.compare("move").keys() != {"0"}:
            lab.broken.append("move: not every needle is served afterwards")
    lab.cluster.move_volume(vid, lab.second, lab.first)
    lab.wait_volumes("the volume to be served from its old server",
                     lambda all: all.get((vid, lab.cluster.server), {}).get("state") == "serving")
    lab.compare("moved back")


def silence(lab: Lab, vid: int) -> None:
    with lab.reading(vid) as reader:
        os.kill(lab.first.pid, signal.SIGSTOP)
        try:
            process.wait_until("the server to stand still", lambda: stands_still(lab.first.pid), [])
            stopped = time.monotonic_ns()  # a question may have been answered until now
            refused = reader.wait_for(ok=False, deadline_s=SILENCE_S + 5)
        finally:
            os.kill(lab.first.pid, signal.SIGCONT)
        continued = time.monotonic_ns()
        after_s = (refused["submitted_ns"] - stopped) / 1e9
        lab.figures["SIGSTOP"] = {"stop_to_first_refusal_s": round(after_s, 2), "status": refused["status"]}
        if (refused["last_before_ns"] - stopped) / 1e9 > SILENCE_S:
            lab.broken.append(f"SIGSTOP: reads were ok for more than {SILENCE_S} s")
        lab.judge_return("SIGSTOP", reader, continued)
    lab.compare("SIGSTOP")


def end_and_restart(lab: Lab, vid: int, number: int, env: dict[str, str] | None = None) -> None:
    scene = signal.Signals(number).name
    with lab.reading(vid) as reader:
        os.kill(lab.first.pid, number)
        lab.judge_revocation(scene, reader)
        lab.first.child.process.wait(30)
        if lab.compare(scene, [lab.second.url]).get("0"):
            lab.broken.append(f"{scene}: something is served although the server has ended")
        lab.first.restart(env)
        lab.judge_return(scene, reader, time.monotonic_ns())
    lab.compare(f"{scene} and restart")


def tokens(lab: Lab, vid: int) -> None:
    """Last: the server then wants tokens."""
    lab.first.restart({"WEED_JWT_SIGNING_READ_KEY": "secret"})
    process.wait_until("reads to be denied", lambda: lab.kelpd.kelpctl("read", lab.needle(vid)).stderr.find(b"denied") >= 0,
                       [lab.kelpd.child], 30)
    if lab.cluster.get(lab.needle(vid))[0] != 401:
        lab.broken.append("the server does not want a token, so the scene proves nothing")


def play(lab: Lab, say: process.Progress) -> None:
    vids = sorted(file.vid for file in lab.cluster.volume_files())
    lab.kelpd.wait_serving(vids)
    if lab.compare("start").keys() != {"0"}:
        lab.broken.append("not every needle is served at the start")
    scenes: list[tuple[str, Callable[[], None]]] = [
        ("unmount and mount", lambda: unmount_and_mount(lab, vids[0])),
        ("read-only volumes", lambda: read_only(lab, vids[1])),
        ("vacuum", lambda: vacuum(lab, vids[2])),
        ("weed fix", lambda: fix_in_place(lab, vids[3])),
        ("two collections, a tiered volume", lambda: ambiguous_and_tiered(lab, vids[0])),
        ("move", lambda: move(lab, vids[1])),
        ("SIGSTOP", lambda: silence(lab, vids[0])),
        ("SIGTERM", lambda: end_and_restart(lab, vids[0], signal.SIGTERM)),
        ("SIGKILL", lambda: end_and_restart(lab, vids[1], signal.SIGKILL)),
        ("torn write", lambda: torn_write(lab, vids[3])),
        ("tokens", lambda: tokens(lab, vids[0])),
    ]
    for name, scene in scenes:
        say(name)
        scene()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and test_attest_reader")
    parser.add_argument("--weed", default=weed.DEFAULT_VERSION, help="version of SeaweedFS")
    parser.add_argument("--needles", type=int, default=4, help="per volume")
    args = parser.parse_args()

    def test(binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home, volume_servers=2) as cluster:
            cluster.grow(4, on=cluster.volume_servers[0])
            lab = Lab(args.programs, home, cluster)
            lab.store(args.needles)
            with lab.kelpd:
                play(lab, say)
        return lab.figures, lab.broken

    return verdict.run("attest", args.weed, test)


if __name__ == "__main__":
    sys.exit(main())
