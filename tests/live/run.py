#!/usr/bin/env python3
"""The live test: a real SeaweedFS, a kelpd beside it, writers and readers at once.

test_live_client stores, overwrites and deletes through weed's HTTP and reads each object through the ring as soon as weed
has acknowledged the change. Meanwhile this program has the master vacuum volumes (proven by the compaction revision in
their super blocks), adds volumes, and deletes and recreates a collection.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import verdict  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402

CHURNED = "churned"  # the collection that comes and goes
VACUUMS = 3


@dataclass
class Events:
    """What happened to the volumes while the clients ran."""

    vacuums: int = 0             # rounds in which at least one super block's revision rose
    volumes_compacted: int = 0   # revisions risen, over all rounds
    vacuum_ms: list[float] = field(default_factory=list)
    volumes_added: int = 0
    collections_deleted: int = 0
    reads_of_collections: int = 0
    longest_new_volume_ms: float = 0  # from the volume's creation to its first needle read through kelpctl


class Client:
    """test_live_client; its progress is read by a thread."""

    def __init__(self, arguments: list[str | Path], log: Path) -> None:
        self.log = log
        self.last: dict[str, Any] = {}
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=log.open("wb"), text=True)
        self.reader = threading.Thread(target=self._follow, daemon=True)
        self.reader.start()

    def _follow(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.last = json.loads(line)

    def running(self) -> bool:
        return self.process.poll() is None

    def reads(self) -> int:
        return int(self.last.get("reads_after_ack", 0))

    def finish(self, deadline_s: float) -> tuple[int, dict[str, Any]]:
        """Says that nothing more will happen; exit code and report."""
        assert self.process.stdin
        self.process.stdin.close()
        code = self.process.wait(deadline_s)
        self.reader.join(10)
        return code, self.last

    def kill(self) -> None:
        if self.running():
            self.process.kill()
            self.process.wait()


class Churn:
    """Makes things happen to the volumes."""

    def __init__(self, cluster: weed.Cluster, kelpd: daemon.Daemon) -> None:
        self.cluster = cluster
        self.kelpd = kelpd
        self.events = Events()
        self.broken: list[str] = []

    def vacuum(self) -> None:
        before = {file.path: file.revision for file in self.cluster.volume_files()}
        started = time.monotonic()
        self.cluster.vacuum()
        self.events.vacuum_ms.append((time.monotonic() - started) * 1000)
        risen = sum(file.revision > before.get(file.path, file.revision) for file in self.cluster.volume_files())
        self.events.volumes_compacted += risen
        self.events.vacuums += risen > 0

    def add_volume(self) -> None:
        self.cluster.grow(1)
        self.events.volumes_added += 1

    def recreate_collection(self) -> None:
        """New volumes, needles in them, all of it deleted: none of the needles may be readable afterwards."""
        started = time.monotonic()
        self.cluster.grow(2, CHURNED)
        bodies: dict[str, bytes] = {}
        for file in self.cluster.volume_files():
            if file.path.name.startswith(CHURNED):
                for _ in range(3):
                    fid = f"{file.vid},{random.getrandbits(40):x}{random.getrandbits(32):08x}"
                    bodies[fid] = random.randbytes(random.choice([1, 4096, 100_000]))
                    self.cluster.put(fid, bodies[fid])
        for fid, body in bodies.items():
            self._expect_body(fid, body)
            self.events.longest_new_volume_ms = max(self.events.longest_new_volume_ms, (time.monotonic() - started) * 1000)
        self.cluster.delete_collection(CHURNED)
        for fid in bodies:
            self._expect_gone(fid)
        self.events.collections_deleted += 1
        self.events.reads_of_collections += 2 * len(bodies)

    def _expect_body(self, fid: str, body: bytes) -> None:
        """A volume kelpd has not seen yet is "unavailable" for a moment; anything else is final."""
        give_up = time.monotonic() + 10
        while True:
            code, got = self.kelpd.read(fid)
            if code == daemon.OK and got == body:
                return
            if code not in (daemon.UNAVAILABLE, daemon.CORRUPT, daemon.USE_HTTP) or time.monotonic() > give_up:
                self.broken.append(f"{fid} of a new volume: kelpctl read ended with {code} and {len(got)} bytes, "
                                   f"stored were {len(body)} bytes")
                return
            time.sleep(0.02)

    def _expect_gone(self, fid: str) -> None:
        code, got = self.kelpd.read(fid)
        if code not in (daemon.NOT_FOUND, daemon.UNAVAILABLE, daemon.USE_HTTP):
            self.broken.append(f"{fid} of a deleted collection: kelpctl read ended with {code} and {len(got)} bytes")


def run_beside(cluster: weed.Cluster, kelpd: daemon.Daemon, args: argparse.Namespace, home: Path,
               say: process.Progress) -> tuple[dict[str, Any], list[str]]:
    log = home / "client.log"
    client = Client([args.programs / "test_live_client", "--server", cluster.server, "--run-dir", kelpd.run_dir,
                     "--skip-collection", CHURNED, "--reads", str(args.reads), "--limit-s", str(args.limit_s)], log)
    churn = Churn(cluster, kelpd)
    events = churn.events
    try:
        turn = 0
        rounds = VACUUMS if args.short else 2 * VACUUMS
        while client.running() and (client.reads() < args.reads or events.vacuums < rounds or turn < 3 * rounds):
            [churn.vacuum, churn.add_volume if turn < 18 else churn.vacuum, churn.recreate_collection][turn % 3]()
            turn += 1
            if turn % 3 == 0:
                say(f"{client.reads()} reads after an acknowledgement, {events.vacuums} vacuums, "
                    f"{events.volumes_added} volumes added, {events.collections_deleted} collections deleted")
            time.sleep(args.pause_s)
        code, report = client.finish(deadline_s=60)
    finally:
        client.kill()
    complaints = log.read_text(errors="replace").strip()
    if complaints:
        print(complaints, file=sys.stderr)
    return judge(code, report, churn, args)


def judge(code: int, report: dict[str, Any], churn: Churn, args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The figures, and which promises were broken."""
    events = churn.events
    broken = list(churn.broken) + list(report.get("complaints", []))
    reads = report.get("reads_after_ack", 0)
    if code != 0:
        broken.append(f"test_live_client ended with exit code {code}")
    if reads < args.reads:
        broken.append(f"{reads} reads after an acknowledgement, {args.reads} are wanted")
    if events.vacuums < VACUUMS:
        broken.append(f"{events.vacuums} vacuums, {VACUUMS} are wanted")
    if events.collections_deleted == 0 or events.volumes_added == 0:
        broken.append("no collection was deleted, or no volume added")
    return {"clients": report, "events": vars(events)}, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and test_live_client")
    parser.add_argument("--weed", default=weed.DEFAULT_VERSION, help="version of SeaweedFS")
    parser.add_argument("--reads", type=int, default=20_000, help="reads straight after an acknowledgement, at least")
    parser.add_argument("--short", action="store_true", help="2 000 reads and fewer vacuums, for sanitizer builds")
    parser.add_argument("--limit-s", type=int, default=150, help="the clients stop after this many seconds in any case")
    args = parser.parse_args()
    if args.short:
        args.reads = min(args.reads, 2_000)
    args.pause_s = 0.3

    def test(binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home, separate_idx=args.weed != weed.DEFAULT_VERSION) as cluster:
            cluster.grow(4)
            say(f"weed {args.weed}: master {cluster.master}, volume server {cluster.server}")
            with daemon.Daemon(args.programs, home, cluster.volume_dir, idx_dir=cluster.idx_dir) as kelpd:
                kelpd.wait_serving(file.vid for file in cluster.volume_files())
                say("kelpd serves all volumes")
                return run_beside(cluster, kelpd, args, home, say)

    return verdict.run("live", args.weed, test)


if __name__ == "__main__":
    sys.exit(main())
