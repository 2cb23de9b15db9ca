#!/usr/bin/env python3
"""A stock `weed mount` 4.44 over FUSE that reads through Kelp: -rdma.enabled -rdma.sidecar=HOST:PORT.

Files of one chunk, stored through a filer, are read through the mount in all sizes, by read() and by mmap, and compared with
what was stored. Then programs read without a pause while kelpd is killed with SIGKILL and comes back: no wrong byte, no read
that hangs, and the mount uses kelpd again. All that by plain bodies, and by temporary files.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed or FUSE cannot be had.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed, weed_server  # noqa: E402
from kelplab.mount_lab import CHUNK, LONGEST_S, VERSION, filer, mounted, obstacle, read_past_cache, store  # noqa: E402

READERS = 4


def files() -> dict[str, bytes]:
    text = b"".join(random.choice([b"storage ", b"needle ", b"volume ", b"\n"]) for _ in range(60000))
    made = {f"{size}.bin": random.randbytes(size) for size in (1, 100, 4095, 4096, 4097, 65537, 131072, 1 << 20, 3_000_001, CHUNK)}
    return made | {f"small-{number}.bin": random.randbytes(9000 + number) for number in range(40)} | {
        "short.txt": text[:700], "long.txt": text, "a name, with: all+sorts & more.bin": random.randbytes(5000)}


class Reader(threading.Thread):
    """Reads whole files, and pieces of them, past the page cache."""

    def __init__(self, folder: Path, content: dict[str, bytes], seed: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.content, self.random = folder, content, random.Random(seed)
        self.stopped = threading.Event()
        self.reads = self.wrong = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []

    def run(self) -> None:
        names = sorted(self.content)
        while not self.stopped.is_set():
            name = self.random.choice(names)
            began = time.monotonic()
            try:
                got = read_past_cache(self.folder / name)
                self.reads += 1
                self.wrong += got != self.content[name]
            except OSError as error:
                self.failures.append(f"{name}: {error}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def stats(sidecar: str) -> dict[str, Any]:
    status, body = weed_server.http_call("GET", f"{sidecar}/stats", timeout_s=5)
    return json.loads(body) if status == 200 else {"total_reads": 0, "temp_files": 0}


class Scene:
    """A filer with files, and mounts of it through kelpds."""

    def __init__(self, programs: Path, binary: Path, home: Path, cluster: weed.Cluster, filer_node: str, say: process.Progress) -> None:
        self.programs, self.binary, self.home, self.cluster = programs, binary, home, cluster
        self.filer_node, self.say = filer_node, say
        self.content = files()
        store(filer_node.rpartition(".")[0], "data", self.content)
        self.kelpds = 0
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}

    def kelpd(self, sidecar: str, temp_dir: Path | None) -> daemon.Daemon:
        self.kelpds += 1
        home = self.home / f"kelpd-{self.kelpds}"
        home.mkdir()
        (home / "kelpd.toml").write_text(f"[sidecar]\ntemp_dir = {json.dumps(str(temp_dir or ''))}\ntemp_min_bytes = 4096\n")
        return daemon.Daemon(self.programs, home, None, volume_servers={self.cluster.server: [self.cluster.volume_dir]},
                             flags=["--config", str(home / "kelpd.toml"), "--sidecar", sidecar, "--master", self.cluster.master])

    def through(self, way: str, temp_dir: Path | None) -> None:
        """All promises, by answers of which some are files, too, where there is a directory for those."""
        sidecar = f"127.0.0.1:{process.free_ports(1)[0]}"
        first = self.kelpd(sidecar, temp_dir)
        first.__enter__()
        try:
            first.wait_serving(file.vid for file in self.cluster.volume_files())
            with mounted(self.binary, self.home / way.replace(" ", "-"), self.filer_node, sidecar) as folder:
                self.say(f"every file, by {way}")
                self.every_file(folder / "data", way)
                served = stats(sidecar)
                self.figures |= {f"{way}: reads by kelpd, every file": served["total_reads"],
                                 f"{way}: of those offered as files": served["temp_files"]}
                if served["total_reads"] < len(self.content) or (served["temp_files"] > 0) != (temp_dir is not None):
                    log = (folder.parent / "mount.log").read_text()
                    self.broken.append(f"by {way} kelpd served {served}: the mount does not use it so.\n{log[-2000:]}")
                self.say("kelpd is killed in mid-read, and comes back")
                self.killed(folder / "data", way, first, sidecar, temp_dir)
        finally:
            first.child.stop()
        if temp_dir is not None and any(temp_dir.iterdir()):
            self.broken.append(f"temporary files are left: {list(temp_dir.iterdir())[:5]}")

    def every_file(self, folder: Path, way: str) -> None:
        for name, body in self.content.items():
            for piece in (4096, 131072, 1 << 20):
                if read_past_cache(folder / name, piece) != body:
                    self.broken.append(f"by {way}: {name} reads as other bytes in pieces of {piece}")
            with (folder / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if mapping[:] != body:
                    self.broken.append(f"by {way}: {name} is mapped as other bytes")

    def killed(self, folder: Path, way: str, first: daemon.Daemon, sidecar: str, temp_dir: Path | None) -> None:
        readers = [Reader(folder, self.content, seed) for seed in range(READERS)]
        for reader in readers:
            reader.start()
        time.sleep(2)
        before_kill = sum(reader.reads for reader in readers)
        first.child.process.kill()
        first.child.process.wait()
        time.sleep(3)
        while_dead = sum(reader.reads for reader in readers) - before_kill
        with self.kelpd(sidecar, temp_dir) as second:
            second.wait_serving(file.vid for file in self.cluster.volume_files())
            process.wait_until("the mount to read by it", lambda: stats(sidecar)["total_reads"] > 0, [second.child], 20)
            time.sleep(2)
            again = stats(sidecar)["total_reads"]
            for reader in readers:
                reader.stopped.set()
            for reader in readers:
                reader.join(2 * LONGEST_S)
        figures = {"reads before the kill": before_kill, "while kelpd is dead": while_dead, "by kelpd again": again,
                   "wrong": sum(reader.wrong for reader in readers), "hung": sum(reader.is_alive() for reader in readers),
                   "failed": sum(len(reader.failures) for reader in readers),
                   "slowest_s": round(max(reader.slowest_s for reader in readers), 3)}
        self.figures |= {f"{way}: {name}": value for name, value in figures.items()}
        if figures["wrong"] or figures["hung"] or figures["failed"] or figures["slowest_s"] > LONGEST_S:
            self.broken.append(f"by {way}, around the kill: {figures}, {[reader.failures[:3] for reader in readers]}")
        if not before_kill or not while_dead or not again:
            self.broken.append(f"by {way}, one of the scenes had no reads: {figures}")


def test(programs: Path, binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], Sequence[str]]:
    with weed.Cluster(binary, home / "weed") as cluster, filer(binary, home, cluster) as filer_node:
        scene = Scene(programs, binary, home, cluster, filer_node, say)
        scene.through("plain bodies", None)
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kelp-mount-") as memory:
            scene.through("temporary files", Path(memory) / "files")
    return scene.figures, scene.broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--weed", default=VERSION)
    args = parser.parse_args()
    if obstacle():
        print(f"skipped: {obstacle()}")
        return verdict.SKIPPED
    random.seed(20261128)
    return verdict.run("mount", args.weed, lambda binary, home, say: test(args.programs, binary, home, say))


if __name__ == "__main__":
    sys.exit(main())
