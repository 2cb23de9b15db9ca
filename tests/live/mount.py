#!/usr/bin/env python3
"""A stock `weed mount` 4.44 over FUSE that reads through Kelp: -rdma.enabled -rdma.sidecar=HOST:PORT.

Files of one chunk, stored through a filer, are read through the mount in all sizes, by read() and by mmap, and compared with
what was stored. Then programs read without a pause while kelpd is killed with SIGKILL and comes back: no wrong byte, no read
that hangs, and the mount uses kelpd again.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed or FUSE cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed, weed_server  # noqa: E402

CHUNK = 4 << 20  # the filer's -maxMB: what is larger has several chunks, which 4.44 reads wrong with any sidecar
LONGEST_S = 5.0  # the mount gives a sidecar so long, and falls back then
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


def read_past_cache(path: Path, piece: int = 1 << 20) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return b"".join(iter(lambda: os.read(fd, piece), b""))
    finally:
        os.close(fd)


@contextlib.contextmanager
def filer(binary: Path, home: Path, cluster: weed.Cluster) -> Iterator[str]:
    port, grpc = process.free_ports(2)
    store = home / "filer"
    store.mkdir()
    child = process.Child("weed-filer", [binary, "-logtostderr=true", "filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-port={port}",
                                         f"-port.grpc={grpc}", f"-master={cluster.masters[0].node}", f"-defaultStoreDir={store}"],
                          home / "filer.log", cwd=home, env=weed_server.environment(home))
    try:
        process.wait_until("the filer", lambda: weed_server.http_call("GET", f"127.0.0.1:{port}/", timeout_s=2)[0] == 200, [child])
        yield f"127.0.0.1:{port}.{grpc}"
    finally:
        child.stop()


@contextlib.contextmanager
def mounted(binary: Path, home: Path, filer_node: str, sidecar: str) -> Iterator[Path]:
    folder = home / "mount"
    folder.mkdir()
    child = process.Child("weed-mount", [binary, "-logtostderr=true", "-v=1", "mount", f"-filer={filer_node}", f"-dir={folder}",
                                         "-dirAutoCreate", "-readOnly", f"-cacheDir={home / 'cache'}", "-cacheCapacityMB=0",
                                         "-rdma.enabled=true", f"-rdma.sidecar={sidecar}"],
                          home / "mount.log", cwd=home, env=weed_server.environment(home))
    try:
        process.wait_until("the mount", folder.is_mount, [child], 20)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
        child.stop()


def total_reads(sidecar: str) -> int:
    status, body = weed_server.http_call("GET", f"{sidecar}/stats", timeout_s=5)
    return json.loads(body)["total_reads"] if status == 200 else -1


def test(programs: Path, binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], Sequence[str]]:
    broken: list[str] = []
    figures: dict[str, Any] = {}
    content = files()
    with weed.Cluster(binary, home / "weed") as cluster, filer(binary, home, cluster) as filer_node:
        filer_url = filer_node.rpartition(".")[0]
        for name, body in content.items():
            target = "".join(c if c.isalnum() or c in ".-" else f"%{ord(c):02X}" for c in name)
            mime = "text/plain" if name.endswith(".txt") else "application/octet-stream"
            status, said = weed_server.http_call("PUT", f"{filer_url}/data/{target}", body, {"Content-Type": mime})
            if status != 201:
                raise process.LabError(f"the filer does not store {name}: {status} {said!r}")
        port = process.free_ports(1)[0]
        sidecar = f"127.0.0.1:{port}"

        def kelpd(number: int) -> daemon.Daemon:
            (home / f"kelpd-{number}").mkdir()
            return daemon.Daemon(programs, home / f"kelpd-{number}", None, volume_servers={cluster.server: [cluster.volume_dir]},
                                 flags=["--sidecar", sidecar, "--master", cluster.master])

        first = kelpd(1)
        first.__enter__()
        try:
            first.wait_serving(file.vid for file in cluster.volume_files())
            with mounted(binary, home, filer_node, sidecar) as folder:
                say("every file")
                data = folder / "data"
                for name, body in content.items():
                    for piece in (4096, 131072, 1 << 20):
                        if read_past_cache(data / name, piece) != body:
                            broken.append(f"{name} reads as other bytes in pieces of {piece}")
                    with (data / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        if mapping[:] != body:
                            broken.append(f"{name} is mapped as other bytes")
                served = total_reads(sidecar)
                figures["reads by kelpd, every file"] = served
                if served < len(content):
                    broken.append(f"kelpd served {served} reads: the mount does not use it.\n{(home / 'mount.log').read_text()[-2000:]}")
                say("kelpd is killed in mid-read, and comes back")
                readers = [Reader(data, content, seed) for seed in range(READERS)]
                for reader in readers:
                    reader.start()
                time.sleep(2)
                before_kill = sum(reader.reads for reader in readers)
                first.child.process.kill()
                first.child.process.wait()
                time.sleep(3)
                while_dead = sum(reader.reads for reader in readers) - before_kill
                with kelpd(2) as second:
                    second.wait_serving(file.vid for file in cluster.volume_files())
                    time.sleep(2)
                    again = total_reads(sidecar)
                    for reader in readers:
                        reader.stopped.set()
                    for reader in readers:
                        reader.join(2 * LONGEST_S)
                    hung = sum(reader.is_alive() for reader in readers)
                    figures |= {"reads before the kill": before_kill, "while kelpd is dead": while_dead, "by kelpd again": again,
                                "wrong": sum(reader.wrong for reader in readers), "hung": hung,
                                "failed": sum(len(reader.failures) for reader in readers),
                                "slowest_s": round(max(reader.slowest_s for reader in readers), 3)}
                    if figures["wrong"] or hung or figures["failed"] or figures["slowest_s"] > LONGEST_S:
                        broken.append(f"around the kill: {figures}, {[reader.failures[:3] for reader in readers]}")
                    if not before_kill or not while_dead or not again:
                        broken.append(f"one of the scenes had no reads: {figures}")
        finally:
            first.child.stop()
    return figures, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--weed", default="4.44")
    args = parser.parse_args()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
        print("skipped: a FUSE mount needs /dev/fuse and root")
        return verdict.SKIPPED
    random.seed(20261128)
    return verdict.run("mount", args.weed, lambda binary, home, say: test(args.programs, binary, home, say))


if __name__ == "__main__":
    sys.exit(main())
