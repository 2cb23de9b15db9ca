#!/usr/bin/env python3
"""Reads over TCP: a kelpd that asks another one, beside a real weed, under 60 reads/s.

The target is killed, stopped and continued, and started again; its key is changed; a gateway that hedges has a stopped one.
No byte is wrong, no read is late, none fails: what the target does not answer the volume server does, over HTTP. Back over TCP
within 6 s of the target's return.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gateway_lab as lab  # noqa: E402
import verdict  # noqa: E402
from gateway_lab import Object  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402

# A sixth of them 1.5 MB. The reader has 178 buffers of that, and a target that is silent is waited for for a second.
RATE = 60
BACK_S = 6.0  # it is dialled every 2 s at the latest
HEDGE_MS = 20
SIZES = (1, 700, 4096, 20_000, 70_000, 1_500_000)
KEYS = {1: "00112233445566778899aabbccddeeff", 2: "ffeeddccbbaa99887766554433221100"}


def stands_still(pid: int) -> bool:
    """Every thread has been stopped: one that runs when the signal comes goes on for a moment."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state == "T" for state in states)


class Peers:
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster) -> None:
        self.programs, self.home, self.cluster = programs, home, cluster
        self.address = f"127.0.0.1:{process.free_ports(1)[0]}"
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}
        self.objects = []
        for fid, size in zip(cluster.assign(len(SIZES)), SIZES, strict=True):
            self.objects.append(Object(fid, random.randbytes(size)))
            cluster.put(fid, self.objects[-1].body)
        self.reader = lab.Reader(programs, home)

    def _keys(self, name: str, *ids: int) -> Path:
        path = self.home / name
        path.write_text("".join(f"{number} {KEYS[number]}\n" for number in ids))
        path.chmod(0o600)
        return path

    def target(self, *ids: int) -> daemon.Daemon:
        return daemon.Daemon(self.programs, self.home / "target", None,
                             volume_servers={self.cluster.server: [self.cluster.volume_dir]},
                             flags=daemon.peer_flags(self.home / "target.toml", listen=self.address,
                                                     keys_file=self._keys("target.keys", *ids)))

    def gateway(self, *ids: int, name: str = "gateway", kelpds: Sequence[str] = (), **items: object) -> daemon.Daemon:
        flags = daemon.peer_flags(self.home / f"{name}.toml", kelpds=list(kelpds) or [self.address],
                                  keys_file=self._keys("gateway.keys", *ids), **items)
        return daemon.Daemon(self.programs, self.home / name, None, flags=["--master", self.cluster.master, *flags])

    @staticmethod
    def peers(kelpd: daemon.Daemon) -> list[dict[str, Any]]:
        return kelpd.control("/peers")["peers"]

    def serving(self, target: daemon.Daemon) -> None:
        target.wait_serving(file.vid for file in self.cluster.volume_files())

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def over_tcp(self, kelpd: daemon.Daemon) -> bool:
        return all(answer["status"] == "ok" and answer["path"] == "tcp" for answer in self.reader.once(kelpd, self.objects))

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(self.target(1))
            self.serving(target)
            gateway = stack.enter_context(self.gateway(1))
            process.wait_until("reads over TCP", lambda: self.over_tcp(gateway), [gateway.child, target.child])
            self.expect([peer["state"] for peer in self.peers(gateway)] == ["up"], f"/peers: {self.peers(gateway)}")
            self.expect([peer["role"] for peer in self.peers(target)] == ["gateway"], f"/peers: {self.peers(target)}")
            with self.reader.steadily(gateway, self.objects, RATE) as steady:
                self._scene(steady, "undisturbed", lambda: time.sleep(2))
                self._scene(steady, "target stopped for 4 s", lambda: self._stop(target))
                self._scene(steady, "target killed", lambda: self._kill(target))
                began = time.monotonic_ns()
                again = stack.enter_context(self.target(1))
                self.serving(again)
                ready = time.monotonic_ns()
                self._scene(steady, "target back", lambda: time.sleep(BACK_S + 1))
            reads = steady.reads()
            first = min((read.done_ns for read in reads if read.path == "tcp" and read.submitted_ns > began), default=None)
            back_s = (first - ready) / 1e9 if first else float("inf")
            self.figures["back over TCP, s after it serves"] = round(back_s, 3)
            self.expect(back_s <= BACK_S, f"back over TCP {back_s:.1f} s after the target serves, not within {BACK_S} s")
            self._judge(reads)
        self._rotation()
        self._hedged()

    def _scene(self, steady: Any, name: str, act: Callable[[], None]) -> None:
        began = time.monotonic_ns()
        act()
        steady.wait_reads(name, 10, since_ns=time.monotonic_ns())
        self.figures[f"{name}, from ns"] = began

    def _stop(self, target: daemon.Daemon) -> None:
        target.child.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        target.child.process.send_signal(signal.SIGCONT)
        time.sleep(BACK_S)

    def _kill(self, target: daemon.Daemon) -> None:
        target.child.process.kill()
        target.child.process.wait()
        target.keep = True  # there is nothing left to stop
        time.sleep(1)

    def _judge(self, reads: Sequence[lab.Read]) -> None:
        verdict = lab.judge(reads)
        self.broken += verdict.complaints("reads through the gateway")
        self.figures["reads"] = asdict(verdict)
        self.expect(verdict.paths.get("tcp", 0) > verdict.reads / 4, f"few reads came over TCP: {verdict.paths}")
        self.expect(verdict.paths.get("http", 0) > 0, f"none came over HTTP while the target was not there: {verdict.paths}")

    def _rotation(self) -> None:
        """A gateway with a key the target does not know reads over HTTP; with one of several it knows, over TCP."""
        with self.target(1, 2) as target:
            self.serving(target)
            with self.gateway(2) as kelpd:
                process.wait_until("reads over TCP with the second key", lambda: self.over_tcp(kelpd), [kelpd.child])
        with self.target(1) as target:
            self.serving(target)
            with self.gateway(2) as kelpd:
                time.sleep(1)
                for _ in range(2):
                    answers = self.reader.once(kelpd, self.objects)
                    self.expect(all(answer["path"] == "http" and answer["right"] for answer in answers),
                                f"with a key nobody knows: {answers}")


    def _hedged(self) -> None:
        """Of a target that does not answer each read is asked of the volume server, too, and that answer is taken."""
        with self.target(1) as target:
            self.serving(target)
            for name in ("hedging", "hedging-anew"):
                with self.gateway(1, name=name, hedge_after_ms=HEDGE_MS) as kelpd:
                    tries = itertools.count()
                    process.wait_until("reads over TCP", lambda: (next(tries), self.over_tcp(kelpd))[1],
                                       [kelpd.child, target.child])
                    # One that needed many has spent of what it may ask twice: once another is taken.
                    if (next(tries) <= 3 or name == "hedging-anew") and self._hedge(kelpd, target, name == "hedging-anew"):
                        return

    def _hedge(self, kelpd: daemon.Daemon, target: daemon.Daemon, last: bool) -> bool:
        """Whether that was judged: a target that is silent for a second is suspected, and then not asked any more, so unless it is
        the last try it is not where the reads were slow."""
        small = [one for one in self.objects if len(one.body) <= 20_000]
        won = self._hedges_won(kelpd)
        target.child.process.send_signal(signal.SIGSTOP)
        try:
            process.wait_until("the target to stand still", lambda: stands_still(target.child.pid), [])
            began = time.monotonic()
            answers = self.reader.once(kelpd, small)
        finally:
            target.child.process.send_signal(signal.SIGCONT)
        took_s = time.monotonic() - began
        self.figures["hedged reads of a stopped target, ms each"] = round(took_s * 1000 / len(small), 1)
        self.expect(all(answer["right"] and answer["path"] == "http" for answer in answers), f"hedged reads: {answers}")
        if took_s > 0.8 and not last:
            return False
        won = self._hedges_won(kelpd) - won
        self.expect(won == len(small), f"of {len(small)} reads of a stopped target {won} were answered by a second way")
        process.wait_until("reads over TCP again", lambda: self.over_tcp(kelpd), [kelpd.child, target.child])
        return True

    @staticmethod
    def _hedges_won(kelpd: daemon.Daemon) -> int:
        return sum(worker["counters"]["hedges_won"] for worker in kelpd.stats()["workers"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and test_gateway_reader")
    parser.add_argument("--weed", metavar="VERSION", default=weed.DEFAULT_VERSION)
    args = parser.parse_args()

    def test(binary: Path, home: Path, _: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home) as cluster:
            cluster.grow(1)
            peers = Peers(args.programs, home, cluster)
            peers.run()
        return peers.figures, peers.broken

    return verdict.run("peers", args.weed, test)


if __name__ == "__main__":
    sys.exit(main())
