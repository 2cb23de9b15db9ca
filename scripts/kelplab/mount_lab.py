"""A stock `weed mount` 4.44 that reads through a sidecar, over FUSE; and the filer it needs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import process, weed, weed_server

VERSION = "4.44"  # 4.45 is the last one with -rdma.*
CHUNK = 4 << 20  # the filer's -maxMB: what is larger has several chunks, which 4.44 reads wrong with any sidecar
LONGEST_S = 5.0  # the mount gives a sidecar so long, and falls back then


def obstacle() -> str:
    """Why there can be no mount here; "" if there can."""
    possible = os.access("/dev/fuse", os.R_OK | os.W_OK) and os.geteuid() == 0
    return "" if possible else "a FUSE mount needs /dev/fuse and root"


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
    """The directory of the mount; its log is `home`/mount.log."""
    folder = home / "mount"
    folder.mkdir(parents=True)
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


def store(filer_url: str, folder: str, content: Mapping[str, bytes]) -> None:
    """Files of that directory of the filer, host:port."""
    for name, body in content.items():
        target = "".join(c if c.isalnum() or c in ".-" else f"%{ord(c):02X}" for c in name)
        mime = "text/plain" if name.endswith(".txt") else "application/octet-stream"
        status, said = weed_server.http_call("PUT", f"{filer_url}/{folder}/{target}", body, {"Content-Type": mime})
        if status != 201:
            raise process.LabError(f"the filer does not store {name}: {status} {said!r}")
