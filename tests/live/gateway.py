#!/usr/bin/env python3
"""The live test of the gateway: three masters, three volume servers, replication 001, and a kelpd that has the files of one
server and asks the others.

What the ring answers is compared with what was stored, byte by byte, and with weed's HTTP. Most scenes go on beneath a
program that reads without a pause (test_gateway_reader): no read may bring wrong bytes, end otherwise than ok while a
replica is left, or come after its deadline. The last scene does that with 1 000 reads a second while the servers are killed
one after the other. Prints the figures of each scene.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gateway_lab as lab  # noqa: E402
import verdict  # noqa: E402
from gateway_lab import Object  # noqa: E402
from kelplab import daemon, process, weed, weed_server  # noqa: E402

COOKIE = 0x1F2E3D4C
LARGEST = 8 << 20
SMALL = 8192         # objects of the scenes that read without a pause are no larger
RATE = 1000          # reads a second of the load scene
QUIET_RATE = 200     # of the other scenes
DOWN_S = 3.0         # how long a killed server stays away
# So that masters are asked throughout, not once per test.
LOOKUP_TTL_MS = 1000


def fid_of(vid: int, key: int) -> str:
    """As everything writes it that signs tokens: whole bytes."""
    digits = f"{key:x}"
    return f"{vid},{digits.zfill(len(digits) + len(digits) % 2)}{COOKIE:08x}"


class Scenes:
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster, say: process.Progress) -> None:
        self.programs = programs
        self.home = home
        self.cluster = cluster
        self.say = say
        self.reader = lab.Reader(programs, home)
        self.objects: list[Object] = []
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}
        self.pairs: dict[frozenset[int], list[int]] = {}  # volumes by the numbers of their servers
        self.events: list[tuple[str, int]] = []  # of the scene that is played, with their CLOCK_MONOTONIC
        self.coded: set[int] = set()  # volumes that are erasure-coded by now
        self.next_key = 1
        self.kelpd = daemon.Daemon(programs, home, None, volume_servers={self.local.url: [self.local.directory]},
                                   flags=lab.gateway_flags([one.url for one in cluster.masters], home,
                                                           lookup_ttl_ms=LOOKUP_TTL_MS))

    @property
    def local(self) -> weed_server.Server:
        return self.cluster.volume_servers[0]

    def grow(self) -> None:
        """Volumes until each two servers share at least two. Where the second replica goes is weed's choice."""
        servers = self.cluster.volume_servers
        for turn in range(60):
            self.cluster.grow(1, on=servers[turn % 3])
            self.pairs = {}
            for vid in sorted({file.vid for server in servers for file in self.cluster.volume_files(server)}):
                holders = frozenset(number for number, server in enumerate(servers)
                                    if (server.directory / f"{vid}.dat").exists())
                self.pairs.setdefault(holders, []).append(vid)
            if len(self.pairs) == 3 and all(len(vids) >= 2 for vids in self.pairs.values()):
                return
        raise process.LabError(f"the volumes are not spread over the servers: {self.pairs}")

    def store(self) -> None:
        for vids in self.pairs.values():
            for vid in vids:
                for size in (1, 100, 4096, SMALL - 1, 65537):
                    self._put(vid, random.randbytes(size), f"{size} B")
                self._put(vid, b"", "empty")
                text = b"".join(random.choice([b"storage ", b"needle ", b"volume ", b"\n"]) for _ in range(1000))
                self._put(vid, text[:SMALL - 1], "text", "text.txt", "text/plain")
                self._put(vid, random.randbytes(777), "named", "a name.bin", "image/x-test")
            for size in (1 << 20, (3 << 20) + 7, LARGEST):
                self._put(vids[0], random.randbytes(size), f"{size} B")
            self._put(vids[0], text * 200, "long text", "long.txt", "text/plain")

    def _put(self, vid: int, body: bytes, what: str, name: str = "", mime: str = "") -> Object:
        one = Object(fid_of(vid, self.next_key), body, what)
        self.next_key += 1
        if name:
            self.cluster.post_file(one.fid, body, name, mime)
        else:
            self.cluster.put(one.fid, body)
        self.objects.append(one)
        return one

    def event(self, what: str) -> None:
        self.events.append((what, time.monotonic_ns()))

    def small(self) -> list[Object]:
        return [one for one in self.objects if len(one.body) <= SMALL]

    def local_vids(self) -> set[int]:
        return {file.vid for file in self.cluster.volume_files(self.local)}

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def expect_reads(self, scene: str, objects: Sequence[Object], path: Callable[[Object], str]) -> None:
        """Each object once through the ring: right, and by that path."""
        paths: dict[str, int] = {}
        for one, answer in zip(objects, self.reader.once(self.kelpd, objects)):
            paths[answer["path"]] = paths.get(answer["path"], 0) + 1
            self.expect(answer["status"] == "ok" and answer["right"] and answer["path"] == path(one),
                        f"{scene}: {one.what} {one.fid} ({len(one.body)} bytes): {answer}, expected by {path(one)}")
        self.figures[scene] = self.figures.get(scene, {}) | {"objects": len(objects), "paths": paths}

    @contextlib.contextmanager
    def reading(self, scene: str, objects: Sequence[Object], rate: int = QUIET_RATE) -> Iterator[lab.Steady]:
        """A program that reads; it is served when the scene begins, and judged when it is over."""
        with self.reader.steadily(self.kelpd, objects, rate) as steady:
            steady.wait_reads(f"{scene}: to begin", 20)
            self.events.clear()
            yield steady
            steady.wait_reads(f"{scene}: to go on", 20, since_ns=time.monotonic_ns())
        verdict = lab.judge(steady.reads())
        self.broken += verdict.complaints(scene)
        began = steady.reads()[0].submitted_ns
        self.figures[scene] = self.figures.get(scene, {}) | asdict(verdict) | {
            "events_s": {what: round((when - began) / 1e9, 2) for what, when in self.events}}

    # ---- the scenes -------------------------------------------------------------------------------------------------

    def every_object(self) -> None:
        for one in self.objects:
            self.expect(self.cluster.get(one.fid, self.cluster.locations(one.vid)[0]) == (200, one.body),
                        f"weed itself does not serve {one.fid} as it was stored, so the test proves nothing")
        local = self.local_vids()
        self.expect_reads("every object", self.objects, lambda one: "local" if one.vid in local else "http")
        far = next(one for one in self.objects if len(one.body) == LARGEST and one.vid not in local)
        for offset, length in ((0, 1), (LARGEST - 1, 5), (LARGEST // 2 - 3, (1 << 20) + 9), (LARGEST, 4)):
            self.expect(self.kelpd.read(far.fid, "--offset", str(offset), "--size", str(length))
                        == (daemon.OK, far.body[offset:offset + length]), f"{far.fid}: {length} bytes from {offset} are wrong")
        self.expect(self.kelpd.read(far.fid, "--offset", str(LARGEST + 1), "--size", "4")[0] == daemon.RANGE,
                    f"{far.fid}: an offset beyond its end is no range error")

    def refusals(self) -> None:
        """What is not there is not there, whoever is asked."""
        for vids in self.pairs.values():
            gone = self._put(vids[1], b"soon gone", "deleted")
            self.objects.remove(gone)
            self.expect(self.cluster.delete(gone.fid, self.cluster.locations(gone.vid)[0]) == 202,
                        f"weed does not delete {gone.fid}")
            unknown, stranger = fid_of(vids[1], 0xFFFFFF), gone.fid[:-1] + "0"
            for fid, codes in ((gone.fid, {daemon.NOT_FOUND}), (unknown, {daemon.NOT_FOUND}),
                               (stranger, {daemon.NOT_FOUND, daemon.WRONG_COOKIE})):
                code = self.kelpd.read(fid)[0]
                self.expect(code in codes, f"{fid}, which is not there: kelpctl read ended with {code}")
        code = self.kelpd.read(fid_of(4_000_000, 1))[0]
        self.expect(code in (daemon.NOT_FOUND, daemon.UNAVAILABLE), f"a volume nobody has: kelpctl read ended with {code}")

    def erasure_coded(self) -> None:
        vid = self.pairs[frozenset({0, 1})][0]
        coded = [one for one in self.objects if one.vid == vid]
        self.cluster.ec_encode(vid)
        self.coded.add(vid)
        process.wait_until("kelpd to let go of the volume", lambda: all(
            volume["id"] != vid or volume["state"] != "serving" for volume in self.kelpd.volumes()), [self.kelpd.child])
        self.expect_reads("erasure-coded", coded, lambda one: "http")

    def chunk_manifest(self) -> None:
        vid = self.pairs[frozenset({0, 2})][0]  # local: the files are here, and only a server can join the chunks
        parts = [self._put(vid, random.randbytes(size), "chunk") for size in (5000, 70000, 1)]
        chunks, offset = [], 0
        for part in parts:
            chunks.append({"fid": part.fid, "offset": offset, "size": len(part.body)})
            offset += len(part.body)
        manifest = json.dumps({"name": "joined", "mime": "image/x-test", "size": offset, "chunks": chunks}).encode()
        fid = fid_of(vid, self.next_key)
        self.next_key += 1
        self.cluster.put(fid, manifest, "cm=true")
        joined = Object(fid, b"".join(part.body for part in parts), "chunk manifest")
        self.expect(self.cluster.get(fid) == (200, joined.body), "weed does not join the chunks, so the scene proves nothing")
        self.expect_reads("chunk manifest", [joined], lambda one: "http")

    def moved(self) -> None:
        """Here and away again, in mid-read: by HTTP, then local, then by HTTP."""
        vid = self.pairs[frozenset({1, 2})][0]
        objects = [one for one in self.small() if one.vid == vid]
        away = self.cluster.volume_servers[2]
        with self.reading("moved in mid-read", objects) as steady:
            self.cluster.move_volume(vid, away, self.local)
            moved = time.monotonic_ns()
            here = steady.wait_reads("moved here: a local read", since_ns=moved, path="local")
            self.cluster.move_volume(vid, self.local, away)
            back = time.monotonic_ns()
            there = steady.wait_reads("moved away: a read by HTTP", since_ns=back, path="http")
        self.figures["moved in mid-read"] |= {"moved_here_to_first_local_ms": round((here.done_ns - moved) / 1e6, 1),
                                              "moved_away_to_first_http_ms": round((there.done_ns - back) / 1e6, 1)}

    def leader_change(self) -> None:
        """The new leader says 503 while it warms up, and a follower that comes back knows no volume for a while."""
        with self.reading("leader change in mid-read", self.small()):
            self._kill_leader_and_restart()
            time.sleep(3 * LOOKUP_TTL_MS / 1000)

    def _kill_leader_and_restart(self) -> None:
        process.wait_until("a leader", self.cluster.leader, [one.child for one in self.cluster.masters if one.child])
        leader = self.cluster.leader()
        assert leader
        leader.kill()
        self.event("leader killed")
        process.wait_until("another leader", lambda: self.cluster.leader() not in (None, leader),
                           [one.child for one in self.cluster.masters if one is not leader and one.child])
        self.event("another leads")
        time.sleep(DOWN_S)
        leader.restart()
        self.event("the old one is back")
        self.healed()
        self.event("whole")

    def masters_restart(self) -> None:
        """All at once: nobody answers for a while, and then they know nothing until the servers have told them."""
        with self.reading("all masters restarted in mid-read", self.small()):
            for master in self.cluster.masters:
                master.stop()
            self.event("all masters gone")
            time.sleep(3 * LOOKUP_TTL_MS / 1000)
            for master in self.cluster.masters:
                master.start()
            self.event("all started")
            self.healed()
            self.event("whole")

    def healed(self) -> None:
        """Until the masters agree, know every volume server, and name two for every volume."""
        vids = {one.vid for one in self.objects}
        process.wait_until("the cluster to be whole", lambda: self.cluster.registered(self.cluster.volume_servers)
                           and all(len(self.cluster.locations(vid)) >= 2 for vid in vids), self.cluster.children, 60)

    def replaced(self) -> None:
        """A server is killed, and another one with its files comes in its place; then only that one is left of a pair."""
        old, other = self.cluster.volume_servers[2], self.cluster.volume_servers[1]
        vids = self.pairs[frozenset({1, 2})]
        objects = [one for one in self.small() if one.vid in vids]
        with self.reading("replaced in mid-read", objects) as steady:
            old.kill()
            self.event("one killed")
            time.sleep(DOWN_S / 2)
            self.cluster.replace(old)
            self.event("replaced")
            self.healed()
            self.event("whole")
            other.stop()
            self.event("the other stopped")
            alone = time.monotonic_ns()
            steady.wait_reads("replaced: reads of the only server that is left", 100, since_ns=alone, path="http")
            other.restart()
            self.event("the other is back")
            self.healed()

    def load(self) -> None:
        """The local volumes' server, then a replica, then the leading master: each is killed and comes back."""
        scene = "load"
        replica = self.cluster.volume_servers[1]
        # Of 14 shards on three servers fewer than the 10 that are needed may be left.
        objects = [one for one in self.small() if one.vid not in self.coded]
        times: dict[str, float] = {}
        with self.reading(scene, objects, RATE) as steady:
            time.sleep(2)
            vids = self.local_vids()
            self.say("load: the local server is killed")
            self.local.kill()
            self.event("local server killed")
            time.sleep(DOWN_S)
            self.local.restart()
            self.event("local server back")
            returned = time.monotonic_ns()
            self.kelpd.wait_serving(vids)
            times["return_to_all_attested_ms"] = (time.monotonic_ns() - returned) / 1e6
            first = steady.wait_reads("the first local read", since_ns=returned, path="local")
            times["return_to_first_local_ms"] = (first.done_ns - returned) / 1e6
            self.healed()
            self.say("load: a replica is killed")
            replica.kill()
            self.event("replica killed")
            time.sleep(DOWN_S)
            replica.restart()
            self.event("replica back")
            self.healed()
            self.say("load: the leading master is killed")
            self._kill_leader_and_restart()
        self.figures[scene] |= {name: round(value, 1) for name, value in times.items()}

    def play(self) -> None:
        self.kelpd.wait_serving(self.local_vids())
        for scene in (self.every_object, self.refusals, self.erasure_coded, self.chunk_manifest, self.moved, self.leader_change,
                      self.masters_restart, self.replaced, self.load):
            self.say(scene.__name__.replace("_", " "))
            scene()
        self.figures["gateway"] = lab.counters(self.kelpd)


def tokens(programs: Path, binary: Path, home: Path, say: process.Progress) -> tuple[list[str], dict[str, Any]]:
    """Servers that want tokens of readers and writers; a kelpd with the readers' key, and one without."""
    say("tokens")
    key, broken, codes = "secret of the readers", [], {}
    with weed.Cluster(binary, home / "tokens", volume_servers=2, replication="001", read_key=key,
                      write_key="secret of the writers") as cluster:
        cluster.grow(1)
        vid = cluster.volume_files()[0].vid
        objects = [Object(fid_of(vid, number), random.randbytes(size)) for number, size in enumerate((1, 4096, 300_000), 1)]
        for one in objects:
            cluster.put(one.fid, one.body)
        one = objects[1]
        if weed_server.http_call("GET", f"{cluster.server}/{one.fid}")[0] != 401:
            broken.append("tokens: the server does not want a token, so the scene proves nothing")
        key_file = home / "read.key"
        key_file.write_text(key + "\n")
        key_file.chmod(0o600)
        flags = lab.gateway_flags([cluster.master], home / "signs", read_key_file=str(key_file))
        with daemon.Daemon(programs, home / "signs", None, flags=flags) as kelpd:
            for answer in lab.Reader(programs, home / "signs").once(kelpd, objects):
                if answer["status"] != "ok" or not answer["right"] or answer["path"] != "http":
                    broken.append(f"tokens: a kelpd with the key: {answer}")
        flags = lab.gateway_flags([cluster.master], home / "signs-not")
        with daemon.Daemon(programs, home / "signs-not", None, flags=flags) as kelpd:
            for way, token, due in (("of the client", weed.token(key, one.fid), daemon.OK), ("none", "", daemon.DENIED),
                                    ("of another key", weed.token("guessed", one.fid), daemon.DENIED),
                                    ("of another object", weed.token(key, objects[0].fid), daemon.DENIED),
                                    ("outlived", weed.token(key, one.fid, lifetime_s=-10), daemon.DENIED),
                                    ("that is none", "none.at.all", daemon.DENIED)):
                code, body = kelpd.read(one.fid, *(["--token", token] if token else []))
                codes[way] = code
                if code != due or (code == daemon.OK and body != one.body):
                    broken.append(f"tokens: token {way}: kelpctl read ended with {code}, not {due}")
    return broken, codes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True,
                        help="directory of kelpd, kelpctl and test_gateway_reader")
    parser.add_argument("--weed", default=weed.DEFAULT_VERSION, help="version of SeaweedFS")
    args = parser.parse_args()

    def test(binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home, masters=3, volume_servers=3, replication="001") as cluster:
            scenes = Scenes(args.programs, home, cluster, say)
            scenes.grow()
            scenes.store()
            with scenes.kelpd:
                scenes.play()
        broken, scenes.figures["tokens"] = tokens(args.programs, binary, home, say)
        return scenes.figures, scenes.broken + broken

    return verdict.run("gateway", args.weed, test)


if __name__ == "__main__":
    sys.exit(main())
