"""Reads by RDMA, and what may go wrong between two kelpds meanwhile."""

from __future__ import annotations

import collections
import concurrent.futures
import gzip
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verbs_lab import ADDRESS, PATIENCE_S, RDMA_PORT, VerbsLab

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixture_rows"))
import run as fixture_rows  # noqa: E402
import growth  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402
from peer_faults import LateReader, is_right  # noqa: E402
from peers import stands_still  # noqa: E402

SLOTS = 64
DEADLINE_MS = 10_000  # three ways, the last of which is HTTP through an emulated CPU
IN_GUEST_MS = 50
BACK_S = 10.0
INFLATED = 8 << 20    # and doubled until that takes longer than a fence waits, kelpctl's start included
TOO_LONG_S = 0.5      # and half of what verbs is waited for at most
ROUNDS = 3            # a guest that stands still for a second breaks a connection: not each time


def rows(programs: Path, binary: Path, home: Path, fixtures: Path, flags: list[str]) -> list[str]:
    """Every row of a fixture manifest, by verbs where the target has it."""
    manifest = [json.loads(line) for line in (fixtures / "manifest.jsonl").read_text().splitlines()]
    check = fixture_rows.Check()
    for number, name in enumerate(fixture_rows.SETS, 1):
        folder = fixture_rows.unpack(fixtures, name, home).rename(weed.Cluster.volume_folder(home, number))
        if manifest[0]["offset_bytes"] == 4:
            fixture_rows.widen(folder)
    with weed.Cluster(binary, home, volume_servers=len(fixture_rows.SETS)) as cluster:
        vids = {row["volume"] for row in manifest} - {fixture_rows.UNKNOWN_VOLUME}
        process.wait_until("the master to know every volume", lambda: all(cluster.locations(vid) for vid in vids),
                           cluster.children, 60)
        lab = VerbsLab.__new__(VerbsLab)
        lab.programs, lab.home, lab.cluster = programs, home, cluster
        lab.address = f"{ADDRESS}:{process.free_ports(1)[0]}"
        view = fixture_rows.View("a master and a kelpd with vs/", frozenset(), servers=True, peer=frozenset({"vs"}),
                                 peer_path="verbs")
        with lab.target(flags=flags) as target, lab.gateway(flags=flags) as gateway:
            served = [row for row in manifest if row["set"] == "vs" and row["status"] == 200]
            target.wait_serving((row["volume"] for row in served), 60)
            abi = fixture_rows.Abi(programs / "fixture_rows", gateway.run_dir)
            try:
                # The first read of a volume goes over HTTP, and tells where it is.
                for row in served:
                    process.wait_until(f"{row['fid']} by verbs", lambda: abi.read(row["fid"]).path in ("verbs", "http")
                                       if row.get("is_ec") or row.get("chunk_manifest")
                                       else abi.read(row["fid"]).path == "verbs" or abi.read(row["fid"]).status != "ok",
                                       [gateway.child], 60)
            finally:
                abi.close()
            fixture_rows.check_rows(gateway, programs, manifest, view, check, kelpctl=False)
            check.expect_few_by_another_way()
    wrong = [f"{fixtures.name}: {one}" for one in check.wrong]
    if check.counts["by verbs"] == 0 or check.counts["rows"] != len(manifest):
        wrong.append(f"{fixtures.name}: {dict(check.counts)}")
    return wrong


class VerbsScenes(VerbsLab):
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster, *, late: int, requests: int, reconnects: int) -> None:
        super().__init__(programs, home, cluster)
        self.late_wanted, self.requests, self.reconnects = late, requests, reconnects

    # ---- ends

    def killed(self) -> None:
        """The target dies with reads under way: they end in time, by TCP's heir HTTP; then it is back by verbs."""
        with self.gateway() as gateway, self.late_reader(gateway, SLOTS) as reader:
            for kills in (True, False):
                with self.target() as target:
                    target.keep = True
                    self.serving(target)
                    began = time.monotonic()
                    self.wait_path(gateway, reader)
                    self.figures[f"by verbs after the start of a target, s ({'killed' if kills else 'stopped'} next)"] = round(
                        time.monotonic() - began, 2)
                    target.child.process.send_signal(signal.SIGSTOP)
                    process.wait_until("the target to stand still", lambda: stands_still(target.child.pid), [])
                    reader.begin(0, SLOTS, DEADLINE_MS)
                    time.sleep(0.2)
                    if kills:
                        target.child.process.kill()
                    ends = reader.end()
                    target.child.process.kill()
                    target.child.process.wait()
                name = "killed" if kills else "stopped"
                self.figures[f"target {name}"] = ends
                limit = 1.2 * DEADLINE_MS + IN_GUEST_MS
                self.expect(ends["wrong"] == ends["changed"] == 0, f"target {name}: {ends}")
                self.expect(ends["longest_ms"] <= limit, f"target {name}: a read took {ends['longest_ms']} ms, not {limit}")
                self.expect(all(way.startswith("ok ") for way in ends["ends"]), f"target {name}: reads failed: {ends['ends']}")
            with self.target() as target:
                self.serving(target)
                began = time.monotonic()
                self.wait_path(gateway, reader)
                back_s = time.monotonic() - began
                self.figures["back by verbs, s after it serves"] = round(back_s, 2)
                self.expect(back_s <= BACK_S, f"back by verbs after {back_s:.1f} s, not {BACK_S}")
            self.expect(reader.changed() == 0, "buffers changed after their reads had ended")

    def programs_die(self) -> None:
        """A program that is killed with reads under way, and a gateway: others see no error, and nothing of them stays."""
        with self.target() as target, self.gateway() as gateway, self.gateway("other") as other, \
                self.late_reader(gateway, SLOTS) as reader, self.late_reader(other, SLOTS) as beside:
            self.serving(target)
            for kelpd, one in ((gateway, reader), (other, beside)):
                self.wait_path(kelpd, one)
            regions = self.resources()["mr"]
            for _ in range(3):
                with self.late_reader(gateway, SLOTS) as victim:
                    self.wait_path(gateway, victim)
                    target.child.process.send_signal(signal.SIGSTOP)
                    victim.begin(0, SLOTS, 20_000)
                    time.sleep(0.1)
                    victim.process.kill()
                    time.sleep(0.2)
                    target.child.process.send_signal(signal.SIGCONT)
                ends = reader.read(0, SLOTS, 20_000)
                self.expect(is_right(ends, "ok verbs", "ok http", "ok tcp"), f"beside a program that died: {ends}")
            process.wait_until("the regions of dead programs to be let go", lambda: self.resources()["mr"] <= regions,
                               [gateway.child], 20)
            other.child.process.kill()
            other.child.process.wait()
            other.keep = True
            ends = reader.read(0, SLOTS, 20_000)
            self.expect(is_right(ends, "ok verbs", "ok http", "ok tcp"), f"beside a gateway that died: {ends}")
            process.wait_until("the target to let go of a dead gateway", lambda: len(self.peers(target)) == 1,
                               [target.child], 20)
            self.wait_path(gateway, reader)

    def forsaken(self) -> None:
        """A program dies with a read at a target that stands still, and nobody asks anything else: nothing of it stays."""
        with self.target() as target, self.gateway() as gateway:
            self.serving(target)
            with self.late_reader(gateway, SLOTS) as victim:
                self.wait_path(gateway, victim)
                target.child.process.send_signal(signal.SIGSTOP)
                process.wait_until("the target to stand still", lambda: stands_still(target.child.pid), [])
                began = time.monotonic()
                victim.begin(0, 1, 20_000)
                victim.process.kill()
                process.wait_until("a dead program to be let go of", lambda: not gateway.control("/clients")["clients"],
                                   [gateway.child], 15)
            self.figures["a program whose target stands still is let go of after s"] = round(time.monotonic() - began, 2)
            target.child.process.send_signal(signal.SIGCONT)

    def cancelled(self) -> None:
        """A target that is long about one read says so when nobody waits for it any more: its link stays, and so do others."""
        with self.target() as target, self.gateway() as gateway, self.late_reader(gateway, len(self.objects)) as reader:
            self.serving(target)
            fid, took_s, size = "", 0.0, INFLATED
            while took_s < TOO_LONG_S:
                size *= 2
                fid = self.cluster.assign(1)[0]
                took_s = self._inflated_s(gateway, fid, size)
            self.figures["a read that is inflated first, s"] = round(took_s, 2)
            self.wait_path(gateway, reader)
            connected = gateway.control("/peers")["rdma_counters"]["connected"]
            # By verbs for a third of the time, and then elsewhere, where it is no sooner.
            ends = [self._read(gateway, fid, 60) for _ in range(4)]
            self.figures["reads that are given up"] = ends
            self.wait_path(gateway, reader)
            again = gateway.control("/peers")["rdma_counters"]["connected"]
            self.expect(any(status != "ok" for status, _ in ends), f"no read was given up: {ends}")
            self.expect(again == connected, f"{again - connected} RDMA connections were made anew for reads that were given up")

    def _inflated_s(self, gateway: daemon.Daemon, fid: str, size: int) -> float:
        """How long a read by verbs takes of what is inflated first, all of it."""
        self.cluster.put(fid, gzip.compress(bytes(size)), gzipped=True)
        process.wait_until("a large needle by verbs", lambda: self._read(gateway, fid, 20_000) == ("ok", "verbs"),
                           [gateway.child], PATIENCE_S)
        began = time.monotonic()
        self._read(gateway, fid, 20_000)
        return time.monotonic() - began

    @staticmethod
    def _read(kelpd: daemon.Daemon, fid: str, timeout_ms: int) -> tuple[str, str]:
        """Of its first bytes: status, path."""
        done = kelpd.kelpctl("--json", "read", fid, "--size", "4096", "--output", "/dev/null", "--timeout", str(timeout_ms))
        said = json.loads(done.stderr)
        return said.get("status", ""), said.get("path", "")

    def arena(self) -> None:
        """A connection that has no more to say holds no blocks of the arena: with a single chunk of them others go on."""
        with self.target(arena_bytes=1 << 20) as target, self.gateway() as gateway, self.gateway("other") as other:
            self.serving(target)
            for kelpd in (gateway, other):
                process.wait_until("reads by verbs", lambda one=kelpd: self._ways(one, depth=1, size=4096) == {"verbs"},
                                   [kelpd.child], 60)
            for turn, depth in enumerate((20, 28, 11)):
                # All at once: of the sends that answer them, some behind the last that is signalled by its number.
                target.child.process.send_signal(signal.SIGSTOP)
                with concurrent.futures.ThreadPoolExecutor() as beside:
                    burst = beside.submit(self._ways, gateway, depth=depth, size=32768, count=depth)
                    with contextlib.suppress(process.LabError):  # they are given up after a second: no matter
                        process.wait_until("all to be asked", lambda: self._asked(gateway) >= depth, [gateway.child], 1)
                    target.child.process.send_signal(signal.SIGCONT)
                    burst.result()
                time.sleep(0.2)
                ways = set[str]()
                for _ in range(ROUNDS):
                    if (ways := self._ways(other, depth=1, size=4096)) == {"verbs"}:
                        break
                self.expect(ways == {"verbs"}, f"turn {turn}: beside a connection at rest, reads went by {ways}")

    def _asked(self, gateway: daemon.Daemon) -> int:
        return sum((peer["traffic"] or {}).get("in_flight", 0) for peer in self.peers(gateway))

    def _ways(self, kelpd: daemon.Daemon, *, depth: int, size: int, count: int = 20) -> set[str]:
        fids = self.home / "small"
        fids.write_text("".join(f"{one.fid}\n" for one in self.objects if len(one.body) <= 4096))
        done = kelpd.kelpctl("--json", "loadgen", "--fids", str(fids), "--depth", str(depth), "--size", str(size),
                             "--duration", "60", "--count", str(count), timeout_s=90)
        said = json.loads(done.stdout)
        self.expect(set(said["statuses"]) == {"ok"}, f"{size} bytes: {said}")
        return set(said["paths"])

    def late(self) -> None:
        """A target that answers when nobody waits any more, and behind a fence: no byte of it lands."""
        with self.target() as target, self.gateway() as gateway, \
                self.late_reader(gateway, len(self.objects) + 4 * SLOTS) as reader:
            self.serving(target)
            answers = 0
            ways: collections.Counter[str] = collections.Counter()
            counts: collections.Counter[str] = collections.Counter()
            cycles = 0
            first = len(self.objects)
            while answers < self.late_wanted and cycles < self.late_wanted / SLOTS * 3:
                self.wait_path(gateway, reader)
                heard = self._heard(target)
                target.child.process.send_signal(signal.SIGSTOP)
                process.wait_until("the target to stand still", lambda: stands_still(target.child.pid), [])
                reader.begin(first, SLOTS, 200)
                began = time.monotonic()
                ends = [reader.end(), reader.read(first, SLOTS // 2, 100)]
                # Every second time until the link is fenced, which takes a quarter of a second more than it is waited for.
                time.sleep(max(0.0, began + (0.3 if cycles % 2 else 0.8) - time.monotonic()))
                target.child.process.send_signal(signal.SIGCONT)
                time.sleep(0.5)
                for each in ends:
                    ways.update(each["ends"])
                    counts.update({key: each[key] for key in ("wrong", "held", "changed")})
                # What it has heard since it goes on, and answers, is of reads that have ended.
                answers += self._heard(target) - heard
                cycles += 1
                first = len(self.objects) + (first - len(self.objects) + SLOTS) % (4 * SLOTS)
            time.sleep(2)
            counts["changed"] += reader.changed()
            stats = gateway.stats()["workers"][0]["counters"]
            self.figures["late"] = {"silences": cycles, "late answers": answers, "ends": dict(ways), **counts,
                                    "of those taken by a link that was not fenced": stats["peer_late"]}
            self.expect(answers >= self.late_wanted, f"only {answers} answers were late")
            self.expect(0 < stats["peer_late"] < answers, f"of {answers} late answers {stats['peer_late']} came by a link")
            self.expect(counts["wrong"] == counts["changed"] == 0, f"late answers: {dict(counts)}")

    @staticmethod
    def _heard(target: daemon.Daemon) -> int:
        return target.stats()["workers"][0]["counters"]["peer_requests"]

    # ---- ways to set it up

    def options(self) -> None:
        """A domain for each target, our own address, a traffic class; no RDMA at all where it is not wanted."""
        with self.target() as target:
            self.serving(target)
            with self.gateway(pd_per_peer=True, source=ADDRESS, traffic_class=104, retries=3, ack_timeout=18) as gateway, \
                    self.late_reader(gateway, len(self.objects)) as reader:
                self.wait_path(gateway, reader)
                for kelpd in (gateway, target):
                    self._tells_of_path(kelpd)
            with self.gateway(use=False) as gateway, self.late_reader(gateway, len(self.objects)) as reader:
                self.wait_path(gateway, reader, "tcp")
                self.expect(not self.peers(gateway), f"an RDMA connection that nobody wanted: {self.peers(gateway)}")

    def _tells_of_path(self, kelpd: daemon.Daemon) -> None:
        """Each end has read back what the connection goes by: in /peers, in the log; the table shows the port's retries."""
        told = self.peers(kelpd)
        ways = [peer["rdma"] or {} for peer in told]
        self.expect(ways and all(way.get("device") == "rxe0" and way.get("gid") == f"::ffff:{ADDRESS}" and
                                 way.get("gid_type") == "RoCE v2" and way.get("mtu_bytes") in (1024, 2048, 4096) for way in ways),
                    f"what a connection goes by: {told}")
        up = [line for line in kelpd.log.read_text().splitlines() if "an RDMA connection is up" in line]
        self.expect(up and all("RoCE v2" in line and "mtu_bytes" in line for line in up), f"the log of a connection: {up}")
        table = kelpd.kelpctl("peers").stdout.decode()
        self.expect(" verbs " in table and " CREDITS " in table and "rcvd_rnr_err" in table, table)

    # ---- strangers

    def strangers(self) -> None:
        """Wrong keys, versions, greetings, frames: refused with a sentence, and everybody else is served."""
        with self.target() as target, self.gateway() as gateway, self.late_reader(gateway, len(self.objects)) as reader:
            self.serving(target)
            self.wait_path(gateway, reader)
            known, unknown = self.keys("known", 1), self.keys("unknown", 2)
            for scene, told in (("garbage", "not the greeting of a gateway"), ("version", "speaks versions")):
                said = self.stranger(scene)
                self.expect(not said[0]["connected"] and told in said[0]["why"], f"{scene}: {said}")
            said = self.stranger("key", keys=unknown)
            self.expect(not said[0]["connected"] and "does not know a key" in said[0]["why"], f"wrong key: {said}")
            said = self.stranger("key")
            self.expect(not said[0]["connected"], f"no key: {said}")
            said = self.stranger("key", keys=known)
            self.expect(said[0]["connected"], f"right key: {said}")
            for scene in ("silent", "nonsense"):
                said = self.stranger(scene)
                self.expect(said[0]["connected"] and said[0]["why"] != "nothing happens", f"{scene}: {said}")
            said = self.stranger("flood", keys=known)
            self.expect(said[0]["connected"] and said[0]["why"] not in ("", "nothing happens"), f"flood: {said}")
            said = self.stranger("become", keys=known)
            self.expect("other privileges" in said[0]["why"], f"a post after a change of user: {said}")
            self._half_open(reader)
            self._many(known)
            ends = self._beside(reader)
            self.expect(is_right(ends, "ok verbs"), f"beside strangers: {ends}")
            log = target.log.read_text()
            self.expect("a peer was refused an RDMA connection" in log, "the log does not tell of refused peers")

    def _beside(self, reader: LateReader) -> dict[str, Any]:
        """Every object; once more if all are right and some came another way: one that stands still may lose a connection."""
        ends = reader.read(0, len(self.objects), 20_000)
        if is_right(ends, "ok tcp", "ok http", "ok verbs") and not is_right(ends, "ok verbs"):
            return reader.read(0, len(self.objects), 20_000)
        return ends

    def _half_open(self, reader: LateReader) -> None:
        """More half-open connections than are listened to."""
        argv = [self.programs / "test_verbs_stranger", ADDRESS, str(RDMA_PORT), "-", "hold", "80"]
        with subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdin and holder.stdout
            said = [json.loads(holder.stdout.readline()) for _ in range(80)]
            ends = self._beside(reader)
            self.expect(is_right(ends, "ok verbs"), f"beside half-open connections: {ends}")
            holder.stdin.close()
        refused = [one["why"] for one in said if not one["connected"]]
        self.figures["of 80 half-open connections refused"] = len(refused)
        self.expect(all("no place" in why for why in refused), f"half-open: {refused}")

    def _many(self, known: Path) -> None:
        """64 connections of one slot each: every limit at its least."""
        small = next(one for one in self.objects if len(one.body) == 4096)
        body = self.home / "body"
        body.write_bytes(small.body)
        said = self.stranger("read", 64, small.fid, body, keys=known)
        self.expect(len(said) == 64 and all(one == {"connected": True, "why": ""} for one in said),
                    f"64 connections: {[one for one in said if one['why']][:3]} ({len(said)})")

    # ---- growth

    def growth(self) -> None:
        with self.target() as target, self.gateway() as gateway:
            self.serving(target)
            with self.late_reader(gateway, len(self.objects)) as reader:
                self.wait_path(gateway, reader)
            self._load(gateway, self.requests // 10)
            self._judge_growth("requests", target, gateway, lambda: self._load(gateway, self.requests))
            self._connect(16)
            self._judge_growth("connections", target, gateway, lambda: self._connect(self.reconnects))

    def _load(self, gateway: daemon.Daemon, count: int) -> None:
        fids = self.home / "small"
        fids.write_text("".join(f"{one.fid}\n" for one in self.objects if len(one.body) <= 20_000))
        before = self.rnr_and_retries()
        for _ in range(ROUNDS):
            done = gateway.kelpctl("--json", "loadgen", "--fids", str(fids), "--depth", "32", "--size", "32768", "--duration", "600",
                                   "--count", str(count), timeout_s=600)
            said = json.loads(done.stdout)
            self.expect(set(said["statuses"]) == {"ok"}, f"requests: {said}")
            # Once a minute where a volume is gets asked anew, over HTTP.
            if by_verbs := said["paths"].get("verbs", 0) >= 0.99 * said["requests"] - 32:
                break
        self.expect(by_verbs, f"requests: {said}")
        after = self.rnr_and_retries()
        moved = {name: after[name] - before[name] for name in after}
        self.figures[f"{count} requests"] = {"per second": round(said["requests_per_s"]), **moved}
        self.expect(moved["rcvd_rnr_err"] == moved["send_rnr_err"] == 0, f"RNR: {moved}")

    def _connect(self, count: int) -> None:
        known = self.keys("known", 1)
        small = next(one for one in self.objects if len(one.body) == 700)
        body = self.home / "body"
        body.write_bytes(small.body)
        for at in range(0, count, 8):
            said = self.stranger("read", min(8, count - at), small.fid, body, keys=known)
            self.expect(all(one == {"connected": True, "why": ""} for one in said), f"connections: {said}")

    def _held(self, target: daemon.Daemon, gateway: daemon.Daemon, before: growth.All | None) -> growth.All:
        """Once it stands still, or is no more than `before`."""
        process.wait_until("one connection to be left", lambda: len(self.peers(target)) == 1, [target.child], 30)
        time.sleep(1)
        ports = {server.port for server in (*self.cluster.masters, *self.cluster.volume_servers)}

        def look() -> growth.All:
            return {"gateway": growth.Held.by(gateway, ports), "target": growth.Held.by(target, ports),
                    "adapter": self.resources()}

        return growth.settled(look, before and (lambda now: not growth.grown(before, now)), 30)

    def _judge_growth(self, name: str, target: daemon.Daemon, gateway: daemon.Daemon, work: Callable[[], None]) -> None:
        seen, complaints = growth.rounds(lambda before: self._held(target, gateway, before), work)
        self.figures[f"growth, {name}"] = {who: [str(each[who]) for each in seen] for who in seen[0]}
        self.broken += [f"{name}: {complaint}" for complaint in complaints]

    # ---- privileges

    def as_somebody_else(self) -> None:
        """Privileges are dropped before the device is opened: reads still go by verbs."""
        with contextlib.ExitStack() as stack:
            for name in ("target", "gateway"):
                (self.home / name / "run").mkdir(parents=True, exist_ok=True)
            os.chmod(self.home, 0o755)
            subprocess.run(["chown", "-R", "nobody", self.cluster.volume_dir, self.home / "target", self.home / "gateway"],
                           check=True)
            for device in ("rdma_cm", "uverbs0"):
                os.chmod(f"/dev/infiniband/{device}", 0o666)
            unlimited = ["prlimit", "--memlock=unlimited"]
            target, gateway = self.target(user="nobody"), self.gateway(user="nobody")
            for kelpd in (target, gateway):
                kelpd.arguments = [*unlimited, *kelpd.arguments]
            stack.enter_context(target)
            self.serving(target)
            stack.enter_context(gateway)
            reader = stack.enter_context(self.late_reader(gateway, len(self.objects)))
            self.wait_path(gateway, reader)
        self._too_little_to_lock()

    def _too_little_to_lock(self) -> None:
        """What cannot be pinned is said with the limit; reads go by TCP."""
        target, gateway = self.target(user="nobody"), self.gateway(user="nobody")
        target.arguments = ["prlimit", "--memlock=unlimited", *target.arguments]
        gateway.arguments = ["prlimit", "--memlock=1048576", *gateway.arguments]
        with target, gateway, self.late_reader(gateway, len(self.objects)) as reader:
            self.serving(target)
            self.wait_path(gateway, reader, "tcp")
            told = "RLIMIT_MEMLOCK is 1048576 bytes"
            process.wait_until("a word of the limit", lambda: told in gateway.log.read_text(), [gateway.child], PATIENCE_S)
            self.expect("RDMA needs" in gateway.log.read_text(), "the log does not tell beforehand that the limit is low")
