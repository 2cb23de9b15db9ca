#!/usr/bin/env python3
"""A kelpd that asks another one over TCP, beside a real weed, and what may go wrong between them.

killed: the target is killed with 256 reads under way: all end in time, by HTTP where that answers.
late:   answers come when nobody waits for them any more, whole or from their middle on: not a byte of them lands.
growth: requests by the million and connections by the thousand make neither kelpd grow.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 weed cannot be had (no package index).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gateway_lab as lab  # noqa: E402
import growth  # noqa: E402
import verdict  # noqa: E402
from kelplab import daemon, load, process, weed  # noqa: E402
from peers import Peers, stands_still  # noqa: E402
from relay import Relay  # noqa: E402

SLOTS = 64           # requests a connection has in flight at most
GATEWAYS = 4         # so 256 together
MANY = 200           # of those
DEADLINE_MS = 5000
ENDS_WITHIN = 1.2    # deadlines
SILENCE_S = 0.6      # a link is given up after a second more than it was waited for
REUSED_MS = 100      # deadline of reads into buffers that late answers were for
BUFFERS = 512
PORTS = 20
# What has lasted for two seconds is connected again a tenth of a second after its end.
PERIOD_S = 2.3
RATE = 100  # of 178 buffers enough are free for a second in which nothing is answered


@dataclass(frozen=True)
class Extent:
    kills: int        # of each kind
    late: int
    requests: int
    connections: int


SHORT = Extent(kills=1, late=150, requests=50_000, connections=50)
FULL = Extent(kills=5, late=1000, requests=1_000_000, connections=1000)


class LateReader:
    """test_late_reader; a context manager."""

    def __init__(self, programs: Path, kelpd: daemon.Daemon, listing: Path, buffers: int) -> None:
        argv = [programs / "test_late_reader", kelpd.run_dir, listing, str(buffers)]
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self.said = b""

    def __enter__(self) -> LateReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def begin(self, first: int, count: int, timeout_ms: int) -> None:
        """Reads into these buffers, all at once. They are under way when this returns; to be followed by end()."""
        self._tell(f"read {first} {count} {timeout_ms}")
        self._answer()

    def end(self) -> dict[str, Any]:
        return self._answer()

    def read(self, first: int, count: int, timeout_ms: int) -> dict[str, Any]:
        self.begin(first, count, timeout_ms)
        return self.end()

    def changed(self) -> int:
        """How many buffers are not as they were left."""
        self._tell("check")
        return self._answer()["changed"]

    def _tell(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command.encode() + b"\n")

    def _answer(self, deadline_s: float = 30) -> dict[str, Any]:
        assert self.process.stdout
        give_up = time.monotonic() + deadline_s
        while b"\n" not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, give_up - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise process.LabError(f"test_late_reader ({self.process.poll()}) says nothing within {deadline_s:.0f} s")
            self.said += more
        line, _, self.said = self.said.partition(b"\n")
        return json.loads(line)


def is_right(ends: dict[str, Any], *ways: str) -> bool:
    return ends["wrong"] == 0 and ends["changed"] == 0 and set(ends["ends"]) <= set(ways)


class PeerFaults(Peers):
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster, extent: Extent) -> None:
        super().__init__(programs, home, cluster)
        self.extent = extent

    def late_reader(self, kelpd: daemon.Daemon, buffers: int) -> LateReader:
        return LateReader(self.programs, kelpd, self.reader.listing(self.objects), buffers)

    def wait_tcp(self, kelpd: daemon.Daemon, reader: LateReader) -> None:
        """Until every object comes over TCP, into the first buffers."""
        process.wait_until("reads over TCP", lambda: is_right(reader.read(0, len(self.objects), 5000), "ok tcp"), [kelpd.child])

    @contextlib.contextmanager
    def http_stopped(self, stopped: bool) -> Iterator[None]:
        if not stopped:
            yield
            return
        os.kill(self.cluster.server_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.cluster.server_pid, signal.SIGCONT)

    # ---- killed

    def killed(self) -> None:
        with contextlib.ExitStack() as stack:
            gateways = [stack.enter_context(self.gateway(1, name=f"gateway-{i}")) for i in range(GATEWAYS)]
            readers = [stack.enter_context(self.late_reader(kelpd, SLOTS)) for kelpd in gateways]
            # With HTTP first: after a stop its breaker lets reads through one by one for some seconds.
            for http, kills in itertools.product((True, False), (True, False)):
                name = f"target {'killed' if kills else 'stopped'}, HTTP {'alive' if http else 'stopped'}"
                rounds = []
                for _ in range(self.extent.kills):
                    for _ in range(3):  # a round in which few are under way does not count
                        rounds.append(self._kill(gateways, readers, kills, http))
                        if rounds[-1]["in flight over TCP"] >= MANY:
                            break
                self._judge_kills(name, http, rounds)

    def _kill(self, gateways: Sequence[daemon.Daemon], readers: Sequence[LateReader], kills: bool,
              http: bool) -> dict[str, Any]:
        """What became of the reads that were under way."""
        with self.target(1) as target:
            target.keep = True  # nothing of it will be left to stop
            try:
                self.serving(target)
                for kelpd, reader in zip(gateways, readers, strict=True):
                    self.wait_tcp(kelpd, reader)
                with self.http_stopped(not http):
                    target.child.process.send_signal(signal.SIGSTOP)
                    process.wait_until("the target to stand still", lambda: stands_still(target.child.pid), [])
                    for reader in readers:
                        reader.begin(0, SLOTS, DEADLINE_MS)
                    time.sleep(0.2)
                    in_flight = sum(map(self._in_flight_over_tcp, gateways))
                    if kills:
                        target.child.process.kill()
                    ends = [reader.end() for reader in readers]
            finally:
                target.child.process.kill()
                target.child.process.wait()
        ways: collections.Counter[str] = collections.Counter()
        for each in ends:
            ways.update(each["ends"])
        return {"in flight over TCP": in_flight, "ends": ways, "wrong": sum(each["wrong"] for each in ends),
                "changed": sum(each["changed"] for each in ends), "held": sum(each["held"] for each in ends),
                "longest / deadline": max(each["longest_ms"] for each in ends) / DEADLINE_MS}

    @staticmethod
    def _in_flight_over_tcp(kelpd: daemon.Daemon) -> int:
        clients = sum(client["in_flight"] for client in kelpd.control("/clients")["clients"])
        return clients - kelpd.control("/stats")["gateway"]["counters"]["in_flight"]

    def _judge_kills(self, name: str, http: bool, rounds: Sequence[dict[str, Any]]) -> None:
        ways: collections.Counter[str] = sum((each["ends"] for each in rounds), collections.Counter())
        figures = {key: sum(each[key] for each in rounds) for key in ("wrong", "changed", "held")}
        longest = max(each["longest / deadline"] for each in rounds)
        in_flight = [each["in flight over TCP"] for each in rounds]
        self.figures[name] = {"rounds": len(rounds), "in flight over TCP": in_flight, "ends": dict(ways), **figures,
                              "longest / deadline": round(longest, 3)}
        self.expect(sum(each >= MANY for each in in_flight) == self.extent.kills,
                    f"{name}: {self.extent.kills} rounds were to have {MANY} reads in flight over TCP: {in_flight}")
        self.expect(longest <= ENDS_WITHIN, f"{name}: a read ended at {longest:.2f} of its deadline")
        self.expect(figures["wrong"] == figures["changed"] == 0, f"{name}: {figures}")
        failed = {way: count for way, count in ways.items() if not way.startswith("ok ")}
        self.expect(not (http and failed), f"{name}: reads failed: {failed}")

    # ---- late

    def late(self) -> None:
        with self.target(1) as target, Relay(self.address) as relay, self.gateway(1, kelpds=relay.addresses) as gateway, \
                self.late_reader(gateway, len(self.objects) + BUFFERS) as reader:
            self.serving(target)
            self.wait_tcp(gateway, reader)
            cycles: list[dict[str, Any]] = []
            arrived = 0
            ways = itertools.cycle(itertools.product((False, True), (True, False)))
            firsts = itertools.cycle(range(len(self.objects), len(self.objects) + BUFFERS, SLOTS))
            while len(cycles) < 4 or (arrived < self.extent.late and len(cycles) < self.extent.late / SLOTS * 3):
                midway, http = next(ways)
                before = relay.counts.ended
                cycles.append(self._silence(target, relay, reader, next(firsts), midway, http))
                self.wait_tcp(gateway, reader)
                arrived += cycles[-1]["late"]
                cycles[-1] |= {"back over TCP, s": time.monotonic() - cycles[-1]["spoke again"],
                               "fenced": relay.counts.ended - before}
            time.sleep(3)
            self._judge_late(relay, cycles, reader.changed())

    def _silence(self, target: daemon.Daemon, relay: Relay, reader: LateReader, first: int, midway: bool,
                 http: bool) -> dict[str, Any]:
        """Reads that are under way while the target is silent, and others into half of their buffers before it speaks again."""
        before = replace(relay.counts)
        with self.http_stopped(not http):
            began = time.monotonic()
            if midway:
                relay.hold_long()
            else:
                target.child.process.send_signal(signal.SIGSTOP)
            reader.begin(first, SLOTS, random.randrange(100, 300))
            ends = [reader.end(), reader.read(first, SLOTS // 2, REUSED_MS)]
            time.sleep(max(0, began + SILENCE_S - time.monotonic()))
            target.child.process.send_signal(signal.SIGCONT)
            relay.let_go()
            spoke_again = time.monotonic()
        while relay.in_flight() > 0 and time.monotonic() < spoke_again + 2:
            time.sleep(0.01)
        time.sleep(0.1)  # from the relay into the gateway
        # Only what came over a connection that is still there has come to the gateway for sure.
        late = relay.counts.late - before.late if relay.counts.ended == before.ended else 0
        return {"midway": midway, "http": http, "ends": ends, "late": late, "spoke again": spoke_again}

    def _judge_late(self, relay: Relay, cycles: Sequence[dict[str, Any]], changed: int) -> None:
        ways: collections.Counter[str] = collections.Counter()
        figures: collections.Counter[str] = collections.Counter()
        for each in cycles:
            for ends in each["ends"]:
                ways.update(ends["ends"])
                figures.update({name: ends[name] for name in ("wrong", "held", "changed")})
        figures["changed"] += changed
        arrived = sum(each["late"] for each in cycles)
        fenced = sum(each["fenced"] for each in cycles if each["late"])
        self.figures["late"] = {
            "silences": len(cycles), "late answers": arrived, "of those, in and behind one that stopped in its middle": sum(
                each["late"] for each in cycles if each["midway"]),
            "answers": relay.counts.answers, "ends": dict(ways), **figures,
            "connections fenced though late answers had come": fenced,
            "back over TCP, s, at most": round(max(each["back over TCP, s"] for each in cycles), 3)}
        self.expect(arrived >= self.extent.late, f"only {arrived} answers came late")
        self.expect(figures["wrong"] == figures["changed"] == 0, f"late answers: {dict(figures)}")
        self.expect(fenced == 0, f"{fenced} connections were fenced though answers had come over them in time")

    # ---- growth

    def growth(self) -> None:
        with self.target(1) as target:
            self.serving(target)
            with self.gateway(1) as gateway:
                process.wait_until("reads over TCP", lambda: self.over_tcp(gateway), [gateway.child])
                self._many_requests(target, gateway)
            with Relay(self.address, PORTS) as relay, self.gateway(1, kelpds=relay.addresses) as gateway:
                process.wait_until("reads over TCP", lambda: self.over_tcp(gateway), [gateway.child])
                self._many_connections(target, gateway, relay)

    def _many_requests(self, target: daemon.Daemon, gateway: daemon.Daemon) -> None:
        small = self.home / "small"
        small.write_text("".join(f"{one.fid}\n" for one in self.objects if len(one.body) <= 20_000))
        bench = load.Bench(self.programs, gateway.run_dir, small)
        options = ("--depth", SLOTS // 2, "--warm-up", 0, "--sleep", "--count")
        bench.run(*options, max(SHORT.requests, self.extent.requests // 10))  # what is allocated once is allocated here

        def work() -> None:
            said = bench.run(*options, self.extent.requests)["kelp"]
            # Where a volume is gets asked anew now and then, over HTTP.
            self.expect(said["paths"].get("tcp", 0) >= 0.99 * self.extent.requests - SLOTS // 2 and not said["errors"],
                        f"requests by these paths: {said['paths']}, errors: {said['errors']}")
            self.figures["requests"] = said

        self._judge_growth("requests", target, gateway, work)

    def _many_connections(self, target: daemon.Daemon, gateway: daemon.Daemon, relay: Relay) -> None:
        self._reset(gateway, relay, PORTS * 2)
        self._all_new(gateway, relay)

        def work() -> None:
            ended, cut_off = relay.counts.ended, relay.counts.cut_off
            verdict = self._reset(gateway, relay, self.extent.connections)
            ended, cut_off = relay.counts.ended - ended, relay.counts.cut_off - cut_off
            self._all_new(gateway, relay)
            self.broken += verdict.complaints("reads while connections are reset")
            self.expect(cut_off > 0, "no request was under way when its connection was reset")
            self.expect(verdict.paths.get("tcp", 0) > verdict.reads / 2, f"few reads came over TCP: {verdict.paths}")
            self.figures["connections"] = {"reset": ended, "reads": asdict(verdict), "requests cut off": cut_off}

        self._judge_growth("connections", target, gateway, work)

    def _reset(self, gateway: daemon.Daemon, relay: Relay, count: int) -> lab.Verdict:
        """So many connections, one after the other, while reads go on."""
        with self.reader.steadily(gateway, self.objects, RATE) as steady:
            steady.wait_reads("reads over TCP", path="tcp")
            end = relay.counts.ended + count
            due = time.monotonic()
            for port in itertools.cycle(range(PORTS)):
                if relay.counts.ended >= end:
                    break
                if port == 0:
                    relay.hold(port, True)  # by this one they are read
                due += PERIOD_S / PORTS
                time.sleep(max(0, due - time.monotonic()))
                relay.reset(port)
            time.sleep(1)
        return lab.judge(steady.reads())

    def _all_new(self, gateway: daemon.Daemon, relay: Relay) -> None:
        """With connections nobody has read by: their memory is touched as it is used."""
        time.sleep(PERIOD_S)
        for port in range(PORTS):
            relay.reset(port)
        process.wait_until("connections to be up again",
                           lambda: len(relay.pairs) == PORTS and all(peer["state"] == "up" for peer in self.peers(gateway)),
                           [gateway.child])

    def _at_rest(self, target: daemon.Daemon, gateway: daemon.Daemon, before: growth.All | None) -> growth.All:
        """What they hold once that stands still, or is no more than `before`."""
        process.wait_until("nothing to be in flight", lambda: not gateway.control("/clients")["clients"]
                           and gateway.control("/stats")["gateway"]["counters"]["in_flight"] == 0, [gateway.child])
        time.sleep(0.5)
        ports = {server.port for server in (*self.cluster.masters, *self.cluster.volume_servers)}

        def look() -> growth.All:
            return {"gateway": growth.Held.by(gateway, ports), "target": growth.Held.by(target, ports)}

        return growth.settled(look, before and (lambda now: not growth.grown(before, now)), 10)

    def _judge_growth(self, name: str, target: daemon.Daemon, gateway: daemon.Daemon, work: Callable[[], None]) -> None:
        """The figures of its last round are there by then."""
        seen, complaints = growth.rounds(lambda before: self._at_rest(target, gateway, before), work)
        self.figures[name] |= {kelpd: [asdict(each[kelpd]) for each in seen] for kelpd in seen[0]}
        self.broken += [f"{name}: {complaint}" for complaint in complaints]


SCENES = {"killed": PeerFaults.killed, "late": PeerFaults.late, "growth": PeerFaults.growth}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True,
                        help="directory of kelpd, kelpctl, kelp-bench, test_gateway_reader and test_late_reader")
    parser.add_argument("--weed", metavar="VERSION", default=weed.DEFAULT_VERSION)
    parser.add_argument("--full", action="store_true", help=f"{FULL} instead of {SHORT}")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only this one; repeatable")
    args = parser.parse_args()

    def test(binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
        with weed.Cluster(binary, home) as cluster:
            cluster.grow(1)
            faults = PeerFaults(args.programs, home, cluster, FULL if args.full else SHORT)
            for name in args.scene or SCENES:
                say(name)
                SCENES[name](faults)
            say("done")
        return faults.figures, faults.broken

    return verdict.run("peers", args.weed, test)


if __name__ == "__main__":
    sys.exit(main())
