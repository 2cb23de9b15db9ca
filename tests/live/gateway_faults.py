#!/usr/bin/env python3
"""The gateway beside volume servers and masters that misbehave (stand_in.py), with a real weed as the healthy replica.

Each behaviour is met alone and beside the replica. What the ring answers is an error or the right bytes, in time; where the
lie shows at once, the replica's bytes. Meanwhile other objects are read without a pause, and nothing becomes of that. No
redirect is followed. A volume server that a caller names is asked only if a master lists it or the configuration allows it.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gateway_lab as lab  # noqa: E402
import stand_in  # noqa: E402
import verdict  # noqa: E402
from gateway_lab import Object  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402

TIMEOUT_MS = 2000   # but for reads that have to be ok
START_MS = 2000     # the reader's, and its end
READS = 6           # of each behaviour, alone and beside the replica
BODY_BYTES = 5000   # enough for what is cut, short enough for one request
COOKIE = 0x5EED5EED
# At once. More would not be seen sooner: it is the stalling ones that take time.
PARALLEL = 8
RANGE = (1000, 500)


@dataclass(frozen=True)
class Case:
    name: str
    server: stand_in.StandIn
    alone: Object  # in a volume that only the stand-in has
    beside: Object  # in one that the replica has, too


class Faults:
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster) -> None:
        self.programs = programs
        self.cluster = cluster
        self.home = home
        self.where: dict[int, list[str]] = {}
        self.reader = lab.Reader(programs, home)
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}
        # A needle's volume is whatever the stand-in of a master says: it names the servers, and weed has but these two.
        self.vids = [file.vid for file in cluster.volume_files()]
        self.healthy = self._put(self.vids[0], 1)
        self.where[self.vids[0]] = [cluster.server]

    def _put(self, vid: int, key: int) -> Object:
        one = Object(f"{vid},{key:04x}{COOKIE:08x}", random.randbytes(BODY_BYTES))
        self.cluster.put(one.fid, one.body)
        return one

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def cases(self, stack: contextlib.ExitStack, elsewhere: stand_in.StandIn) -> list[Case]:
        """Each with a port and two volumes of its own, so that one's failures tell nothing about another."""
        lies = stand_in.behaviours(stand_in.Honest(self.cluster.server), elsewhere.url)
        found = []
        for number, (name, behave) in enumerate(lies.items()):
            server = stack.enter_context(stand_in.StandIn(behave))
            alone, beside = self.vids[1 + 2 * number], self.vids[2 + 2 * number]
            self.where[alone] = [server.url]
            self.where[beside] = [server.url, self.cluster.server]
            found.append(Case(name, server, self._put(alone, 1), self._put(beside, 1)))
        return found

    # ---- what is tried ----------------------------------------------------------------------------------------------

    def meet(self, kelpd: daemon.Daemon, case: Case) -> None:
        stalls = case.name in stand_in.STALLING
        answers = {"alone": self._read(kelpd, case, case.alone, TIMEOUT_MS),
                   "beside a replica": self._read(kelpd, case, case.beside, TIMEOUT_MS if stalls else lab.TIMEOUT_MS)}
        for where, statuses in answers.items():
            self.figures[f"{case.name}, {where}"] = dict(collections.Counter(statuses))
        if not stalls:
            self.expect(set(answers["beside a replica"]) == {"ok"},
                        f"{case.name}: not every read beside a replica is ok: {answers['beside a replica']}")
        self.expect(case.server.hits > 0, f"{case.name}: it was never asked, so this proves nothing")

    def _read(self, kelpd: daemon.Daemon, case: Case, one: Object, timeout_ms: int) -> list[str]:
        """How the reads ended; none may have wrong bytes, or come late."""
        statuses = []
        for _ in range(1 if case.name in stand_in.STALLING else READS):
            began = time.monotonic()
            answer = self.reader.once(kelpd, [one], timeout_ms)[0]
            took_ms = (time.monotonic() - began) * 1000
            self.expect(answer["right"], f"{case.name}: wrong bytes: {answer}")
            self.expect(took_ms < timeout_ms + lab.GRACE_MS + START_MS,
                        f"{case.name}: answered after {took_ms:.0f} ms: {answer}")
            statuses.append(answer["status"])
        offset, length = RANGE
        code, body = kelpd.read(one.fid, "--offset", str(offset), "--size", str(length), "--timeout", str(timeout_ms))
        # A byte that is wrong in a part cannot be seen: checksums are of the whole.
        if case.name not in ("has another ETag", "has one wrong byte"):
            self.expect(code != daemon.OK or body == one.body[offset:offset + length], f"{case.name}: wrong bytes of a range")
        return statuses

    def misbehaviour(self, kelpd: daemon.Daemon, cases: list[Case], elsewhere: stand_in.StandIn) -> None:
        with self.reader.steadily(kelpd, [self.healthy], 50) as steady:
            steady.wait_reads("the healthy server", 10)
            with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
                for done in [pool.submit(self.meet, kelpd, case) for case in cases]:
                    done.result()
            steady.wait_reads("the healthy server afterwards", 10, since_ns=time.monotonic_ns())
        verdict = lab.judge(steady.reads())
        self.broken += verdict.complaints("reads of a healthy server meanwhile")
        self.figures["reads of a healthy server meanwhile"] = asdict(verdict)
        self.expect(elsewhere.hits == 0, f"redirects were followed: {elsewhere.paths[:5]}")
        redirects = sum("redirects" in case.name for case in cases)
        refused = lab.counters(kelpd)["redirects_refused"]
        self.expect(refused >= redirects, f"{refused} redirects are counted as refused, there were {redirects} kinds")

    def named_servers(self, kelpd: daemon.Daemon, allowed: stand_in.StandIn, elsewhere: stand_in.StandIn, master: str) -> None:
        """Texts that are not the text of a server that a master lists or the configuration allows."""
        server = self.cluster.server
        port = server.partition(":")[2]
        refused = [
            "http://169.254.169.254/latest/meta-data/", "169.254.169.254:80", "file:///etc/passwd", "/etc/passwd",
            f"gopher://{server}", f"ftp://{server}", elsewhere.url, f"http://{elsewhere.url}", master, f"127.0.0.1:{int(port) ^ 1}",
            f"localhost:{port}", f"LOCALHOST:{port}", f"127.1:{port}", f"127.0.0.01:{port}", f"0x7f.0.0.1:{port}",
            f"2130706433:{port}", f"0.0.0.0:{port}", f"[::1]:{port}", f"[::ffff:127.0.0.1]:{port}", f"127.0.0.1.:{port}",
            f"{server}@{elsewhere.url}", f"user@{server}", f"user:password@{server}", f"http://{server}@{elsewhere.url}/",
            f"http://{elsewhere.url}#@{server}", f"http://{elsewhere.url}\\@{server}", f"{server}/../{elsewhere.url}",
            f"{server}?x=1", f"{server}#x", f"{server}/x", f"{server} ", f" {server}", f"{server}\r\nHost: x", f"{server}%00",
            "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", f"127.0.0.1:+{port}", f"127.0.0.1:{int(port) + 65536}", f":{port}",
            f"{server},{elsewhere.url}", "x" * 300 + f":{port}",
        ]
        before = lab.counters(kelpd)["servers_refused"]
        codes = {text: kelpd.read(self.healthy.fid, "--volume-server", text)[0] for text in refused}
        for text, code in codes.items():
            # libkelp hands on no text with spaces or control characters.
            due = {daemon.DENIED, daemon.BAD_FID} if any(letter <= " " for letter in text) else {daemon.DENIED}
            self.expect(code in due, f"volume server {text!r}: kelpctl read ended with {code}, not denied")
        counted = lab.counters(kelpd)["servers_refused"] - before
        denied = sum(code == daemon.DENIED for code in codes.values())
        self.expect(counted == denied, f"{denied} servers were refused, {counted} are counted")
        self.expect(elsewhere.hits == 0, f"a server nobody listed was asked: {elsewhere.paths[:5]}")
        for text in (server, f"http://{server}", allowed.url):
            self.expect(kelpd.read(self.healthy.fid, "--volume-server", text) == (daemon.OK, self.healthy.body),
                        f"volume server {text!r}, which is allowed, does not serve")
        self.expect(allowed.hits > 0, "the server that the configuration allows was not asked")
        self.figures["volume servers named by a caller"] = {"refused": len(refused), "counted": counted}

    def masters(self, good: stand_in.StandIn, elsewhere: stand_in.StandIn) -> None:
        """A good master is asked after those that are none."""
        def says(answer: stand_in.Answer) -> stand_in.Behaviour:
            return lambda connection, request: connection.send(answer.whole())
        nonsense: dict[str, stand_in.Behaviour] = {
            "redirects": says(stand_in.Answer(302, b"", {"Location": f"http://{elsewhere.url}/dir/lookup"})),
            "sends no JSON": says(stand_in.Answer(200, b"{" * 100_000)),
            "lists servers that are none": says(stand_in.Answer(200, json.dumps({"locations": [
                {"url": f"user@{elsewhere.url}"}, {"url": "file:///etc/passwd"}, {"url": 7}, {}]}).encode())),
            "sends 16 MiB": says(stand_in.Answer(200, b" " * (16 << 20))),
            "never answers": stand_in.never_answers,
            "is warming up": says(stand_in.Answer(503, b'{"error": "service warming up"}', {"Retry-After": "15"})),
        }
        for number, (name, behave) in enumerate(nonsense.items()):
            with stand_in.StandIn(behave) as bad:
                home = self.home / f"master-{number}"
                flags = lab.gateway_flags([bad.url, good.url], home)
                with daemon.Daemon(self.programs, home, None, flags=flags) as kelpd:
                    answer = self.reader.once(kelpd, [self.healthy])[0]
                    self.expect(answer["status"] == "ok" and answer["right"], f"beside a master that {name}: {answer}")
        self.expect(elsewhere.hits == 0, f"a master's redirect was followed: {elsewhere.paths[:5]}")

    def play(self, say: process.Progress) -> None:
        with contextlib.ExitStack() as stack:
            elsewhere = stack.enter_context(stand_in.StandIn(stand_in.never_answers))
            honest = stand_in.Honest(self.cluster.server)
            allowed = stack.enter_context(stand_in.StandIn(lambda connection, request: connection.send(honest(request).whole())))
            cases = self.cases(stack, elsewhere)
            master = stack.enter_context(stand_in.StandIn(stand_in.Master(self.where)))
            flags = lab.gateway_flags([master.url], self.home, allow_volume_servers=[allowed.url])
            with daemon.Daemon(self.programs, self.home, None, flags=flags) as kelpd:
                say(f"{len(cases)} ways to misbehave")
                self.misbehaviour(kelpd, cases, elsewhere)
                say("volume servers named by a caller")
                self.named_servers(kelpd, allowed, elsewhere, master.url)
                self.figures["gateway"] = lab.counters(kelpd)
            say("masters that misbehave")
            self.masters(master, elsewhere)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=lambda path: Path(path).resolve(), required=True,
                        help="directory of kelpd, kelpctl and test_gateway_reader")
    args = parser.parse_args()

    def test(binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home) as cluster:
            cluster.grow(1 + 2 * len(stand_in.behaviours(stand_in.Honest(""), "")))
            faults = Faults(args.programs, home, cluster)
            faults.play(say)
        return faults.figures, faults.broken

    return verdict.run("faults", weed.DEFAULT_VERSION, test)


if __name__ == "__main__":
    sys.exit(main())
