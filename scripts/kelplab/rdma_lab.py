"""A weed, the kelpd beside it, and one that asks that one by RDMA, in the Soft-RoCE guest; and how to get in there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import daemon, load, process, weed

ROOT = Path(__file__).resolve().parents[2]
DEVICE, ADDRESS, RDMA_PORT = "rxe0", "10.9.0.1", 18515
PERFTEST_PORT = 18600
LIMIT_S = 1500
# Of a worker before it sleeps: kelpd's default.
SPIN_US = 50


@dataclass(frozen=True)
class RdmaLab:
    """Each worker has a CPU of its own. The target keeps no needles, so that each read is a pread."""

    programs: Path
    home: Path
    cluster: weed.Cluster
    target: daemon.Daemon
    gateway: daemon.Daemon
    cpus: tuple[int, int]  # of the gateway's worker and the target's

    def fids(self, size: int) -> Path:
        """Ids of the needles of that size, one per line."""
        return self.home / f"fids-{size}"

    def loadgen(self, size: int, *options: object) -> dict[str, Any]:
        done = self.gateway.kelpctl("--json", "loadgen", "--fids", str(self.fids(size)), "--size", str(size), *map(str, options),
                                    timeout_s=120)
        if done.returncode != 0:
            raise process.LabError(f"kelpctl loadgen ended with exit code {done.returncode}: {done.stderr!r}")
        return json.loads(done.stdout)

    def generate(self, size: int, depth: int, seconds: float) -> dict[str, Any]:
        """Reads by the gateway's worker itself, by RDMA."""
        result = self.loadgen(size, "--depth", depth, "--duration", seconds)
        # Once a minute where a volume is gets asked anew, over HTTP.
        if result["paths"].get("verbs", 0) < 0.99 * result["requests"] - depth:
            raise process.LabError(f"reads did not come by RDMA: {result['paths']}")
        return result

    def bare(self, what: str, size: int, seconds: float, *words: object) -> dict[str, Any]:
        return json.loads(load.output_of([self.programs / "kelp-verbs-bare", what, "--file", self.home / f"bare-{size}", "--size",
                                          size, "--cpus", ",".join(map(str, self.cpus)), "--seconds", seconds, *words]))

    def bare_reads(self, size: int, depth: int, seconds: float) -> dict[str, Any]:
        return self.bare("reads", size, seconds, "--address", ADDRESS, "--depth", depth)

    def one_way_us(self, program: str, size: int, messages: int) -> float:
        """Half a round trip, as perftest's two processes take it."""
        words = [program, "-d", DEVICE, "-F", "-s", str(size), "-n", str(messages), "-p", str(PERFTEST_PORT)]
        on = [["taskset", "--cpu-list", str(cpu)] for cpu in self.cpus]
        server = process.Child(program, [*on[1], *words], self.home / "perftest.log")
        try:
            process.wait_until(f"{program} to listen", lambda: listens(PERFTEST_PORT), [server])
            output = load.output_of([*on[0], *words, ADDRESS])
        finally:
            server.stop(1)
        rows = [line.split() for line in output.splitlines()]
        # Bytes, messages, least, most, typical.
        typical = [float(row[4]) for row in rows if len(row) > 5 and row[0] == str(size)]
        if not typical:
            raise process.LabError(f"{program} says no figures: {output}")
        # It does not always find out how fast the CPU's clock is.
        return typical[0] if math.isfinite(typical[0]) else self.one_way_us(program, size, messages)

    def spin(self, microseconds: int) -> None:
        """Of both workers, before they sleep."""
        for kelpd in (self.target, self.gateway):
            config = kelpd.run_dir.parent / "kelpd.toml"
            config.write_text(config.read_text().rpartition("spin_us = ")[0] + f"spin_us = {microseconds}\n")
            if kelpd.kelpctl("reload").returncode != 0:
                raise process.LabError("kelpd cannot be told how long to spin")

    def peer_of(self, kelpd: daemon.Daemon) -> dict[str, Any]:
        """The RDMA connection, as that end of it tells."""
        answer = kelpd.control("/peers")
        found = [peer for peer in answer["peers"] if peer["path"] == "verbs" and peer["adapter"]]
        if len(found) != 1:
            raise process.LabError(f"not one RDMA connection: {answer['peers']}")
        return found[0]


def listens(port: int) -> bool:
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
               for table in ("/proc/net/tcp", "/proc/net/tcp6") for line in Path(table).read_text().splitlines()[1:])


def toml(home: Path, peer: str, rdma: str, target: str = "") -> list[str]:
    """Flags of a kelpd with these items. spin_us comes last: see RdmaLab.spin."""
    home.mkdir()
    (home / "kelpd.toml").write_text(f"[peer]\nallow_unauthenticated = true\n{peer}\n[rdma]\n{rdma}\n{target}\n"
                                     f"[worker]\nspin_us = {SPIN_US}\n")
    return ["--config", str(home / "kelpd.toml")]


@contextlib.contextmanager
def rdma_lab(programs: Path, needles: Mapping[int, int], say: process.Progress) -> Iterator[RdmaLab]:
    """`needles`: how many of each size in bytes are stored. Reads come by RDMA when it yields."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise process.LabError("two CPUs are needed: one for each worker")
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with process.scratch_dir("kelp-bench-") as home, file_system(home), weed.Cluster(binary, home) as cluster:
        cluster.grow(1)
        for size, count in needles.items():
            fids = cluster.assign(count)
            for fid in fids:
                cluster.put(fid, random.randbytes(size))
            (home / f"fids-{size}").write_text("\n".join(fids) + "\n")
            (home / f"bare-{size}").write_bytes(random.randbytes(count * size))
        address = f"{ADDRESS}:{process.free_ports(1)[0]}"
        target_flags = toml(home / "target", f'listen = "{address}"', f'listen = "{ADDRESS}:{RDMA_PORT}"',
                            "[target]\ncache_bytes = 0")
        gateway_flags = toml(home / "gateway", f'kelpds = "127.0.0.1={address}"', "")
        with daemon.Daemon(programs, home / "target", None, volume_servers={cluster.server: [cluster.volume_dir]},
                           flags=["--cpus", str(cpus[-1]), *target_flags]) as target:
            target.wait_serving(file.vid for file in cluster.volume_files())
            with daemon.Daemon(programs, home / "gateway", None,
                               flags=["--cpus", str(cpus[0]), "--master", cluster.master, *gateway_flags]) as gateway:
                made = RdmaLab(programs, home, cluster, target, gateway, (cpus[0], cpus[-1]))
                process.wait_until("reads by RDMA", lambda: taught(made, needles), [target.child, gateway.child], 60)
                yield made


@contextlib.contextmanager
def file_system(at: Path) -> Iterator[None]:
    """An ext4, as volumes have it. That of the guest itself can only be read by a thread that may sleep."""
    image = Path("/run/kelp-bench.ext4")
    with image.open("wb") as file:
        file.truncate(512 << 20)
    for words in (["modprobe", "--all", "loop", "ext4"], ["mkfs.ext4", "-q", str(image)],
                  ["mount", "-o", "loop", str(image), str(at)]):
        load.output_of(words)
    try:
        yield
    finally:
        load.output_of(["umount", "--lazy", str(at)])


def taught(made: RdmaLab, needles: Mapping[int, int]) -> bool:
    """The first read of a volume goes over HTTP and tells which kelpd to ask; that says over TCP that there is RDMA."""
    results = [made.loadgen(size, "--count", 2 * count) for size, count in needles.items()]
    return all(result["paths"].get("verbs", 0) == result["requests"] for result in results)


def run_in_guest(script: Path, words: Sequence[str], out: Path) -> int:
    """That program with --in-guest and `words`, whose exit code this returns. Its stdout goes to `out`/report, and what else it
    writes to /out lies in `out`, too; what it prints on its console is progress."""
    weed.install(weed.DEFAULT_VERSION, process.Progress())  # nothing can be fetched in there
    guest = [ROOT / "scripts" / "soft-roce" / "run-in-guest.sh", "--pin", "--limit", str(LIMIT_S), "--out", out, "--"]
    command = [sys.executable, str(script), *words, "--in-guest"]
    return subprocess.run([*guest, "sh", "-c", 'exec "$@" >/out/report', "sh", *command], stdout=sys.stderr, check=False).returncode
