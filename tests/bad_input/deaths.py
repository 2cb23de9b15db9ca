"""Clients and daemons that are killed: all that they held comes back, and nothing grows.

KELP_SOAK=long in the environment: ten times as many requests, attaches and deaths.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scene import Scene, Skipped, daemon, expect, health, killed_at_the_end, plain_row, promise, reads, wait_for

EXTENT = 10 if os.environ.get("KELP_SOAK") == "long" else 1
REQUESTS, ATTACHES, DEATHS = 1_000_000 * EXTENT, 1_000 * EXTENT, 20 * EXTENT
QUIET = {"daemon.log_level": "warning"}
BACK_WITHIN_S = 1.0
TRIES = 3  # a machine that stands still for a second does not do so each time
# What the allocator may keep of what it was given; a leak per request or per attach is far more, and each time.
SLACK_KIB, ROUNDS = 512, 3
POLLS, SLEEPS = "1000000", "0"


@dataclass(frozen=True)
class Held:
    """What a process has, of what a client can make it have."""

    rss_kib: int
    descriptors: int
    mappings: int


def held_by(pid: int) -> Held:
    """Memory last: it is freed after the descriptor of what it was for."""
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    mappings = Path(f"/proc/{pid}/maps").read_text().count("/memfd:")
    status = Path(f"/proc/{pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return Held(rss, descriptors, mappings)


class SoakClient:
    """A soak_client that floods until it is ended or killed."""

    def __init__(self, scene: Scene, kelpd: daemon.Daemon, row: dict[str, Any], spin_us: str = SLEEPS,
                 prefix: tuple[str, ...] = ()) -> None:
        self.program = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *prefix, scene.programs / "soak_client",
                                         kelpd.run_dir, row["fid"], spin_us],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def expect_event(self, event: str) -> None:
        assert self.program.stdout
        line = self.program.stdout.readline().strip()
        expect(line == event, f"a client says {line!r}, not {event!r}")

    def kill(self) -> None:
        self.program.kill()
        self._close()

    def end(self) -> dict[str, int]:
        """Its own account, after it has ended."""
        said, _ = self.program.communicate(timeout=30)
        words = said.splitlines()[-1].split()
        expect(self.program.returncode == 0, f"a client ended with {self.program.returncode}: {said!r}")
        return {name: int(count) for name, count in zip(words[::2], words[1::2])}

    def _close(self) -> None:
        for pipe in (self.program.stdin, self.program.stdout):
            if pipe:
                pipe.close()
        self.program.wait()


@contextlib.contextmanager
def witness(scene: Scene, kelpd: daemon.Daemon, row: dict[str, Any]) -> Iterator[None]:
    """Another client, which reads all the while and sees no error and no other byte."""
    client = SoakClient(scene, kelpd, row)
    try:
        client.expect_event("reading")
        yield
        account = client.end()
    finally:
        client.kill()
    expect(account["right"] > 0 and account["other"] == 0 and account["failed"] == 0, f"the other client: {account}")


def seconds_until_back(kelpd: daemon.Daemon, before: Held, since: float) -> float:
    while True:
        now = held_by(kelpd.child.pid)
        took = time.monotonic() - since
        if now.descriptors <= before.descriptors and now.mappings <= before.mappings:
            return took
        expect(took < 10, f"10 s after a death: {now}, and {before} before the client came")
        time.sleep(0.001)


def extent(scene: Scene, count: int) -> int:
    """Sanitizers slow everything down by the same factor."""
    return count // 20 if scene.has_address_sanitizer() else count


@promise("deaths")
def what_a_killed_client_held_is_back_within_a_second_and_others_see_no_error(scene: Scene) -> None:
    row, dice = plain_row(scene), random.Random(scene.seed)
    # As many as there are: whoever is not given back is missed at once.
    settings = QUIET | {"client.max_clients_per_uid": 2, "client.max_channels_per_uid": 2}
    with scene.kelpd(scene.volumes(), settings=settings) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        wait_for("kelpctl to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
        with witness(scene, kelpd, row):
            before, took = held_by(kelpd.child.pid), []
            for death in range(extent(scene, DEATHS)):
                seconds = 0.0
                for _ in range(TRIES):
                    victim = SoakClient(scene, kelpd, row, POLLS if death % 2 else SLEEPS)
                    victim.expect_event("reading")
                    time.sleep(dice.uniform(0, 0.02))
                    since = time.monotonic()
                    victim.program.send_signal(signal.SIGKILL)
                    seconds = seconds_until_back(kelpd, before, since)
                    victim.kill()
                    if seconds <= BACK_WITHIN_S:
                        break
                took.append(seconds)
        wait_for("clients to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
        print(f"     back after a kill, in ms: median {statistics.median(took) * 1000:.1f}, "
              f"longest {max(took) * 1000:.1f}, of {len(took)}")
        expect(max(took) <= BACK_WITHIN_S, f"only after {max(took):.2f} s")


@promise("deaths")
def a_client_that_dies_in_another_pid_namespace_is_noticed_by_its_hang_up(scene: Scene) -> None:
    namespace = ("unshare", "--pid", "--fork", "--kill-child")
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        raise Skipped("no PID namespace can be made here")
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        wait_for("kelpctl to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
        before = held_by(kelpd.child.pid)
        victim = SoakClient(scene, kelpd, row, prefix=namespace)
        victim.expect_event("reading")
        since = time.monotonic()
        victim.kill()  # unshare; --kill-child takes the client along
        took = seconds_until_back(kelpd, before, since)
        expect(took <= BACK_WITHIN_S, f"only after {took:.2f} s")
        expect(reads(kelpd, row), "a needle does not read afterwards")


def cycles(scene: Scene, kelpd: daemon.Daemon, row: dict[str, Any], per_attach: int, attaches: int) -> None:
    done = subprocess.run([scene.programs / "soak_client", kelpd.run_dir, row["fid"], SLEEPS, str(per_attach), str(attaches)],
                          capture_output=True, text=True, check=False, timeout=1000)
    expect(done.returncode == 0 and done.stdout.split() == ["right", str(per_attach * attaches), "other", "0", "failed", "0"],
           f"exit code {done.returncode}: {done.stdout!r} {done.stderr!r}")


@promise("deaths")
def requests_by_the_million_and_attaches_by_the_thousand_make_nothing_grow(scene: Scene) -> None:
    row = plain_row(scene, size=4097)
    requests, attaches = extent(scene, REQUESTS), extent(scene, ATTACHES)
    with scene.kelpd(scene.volumes(), settings=QUIET) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        cycles(scene, kelpd, row, 100, attaches // 4)  # what is allocated once is allocated here
        wait_for("clients to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
        seen = [held_by(kelpd.child.pid)]
        for _ in range(ROUNDS):
            cycles(scene, kelpd, row, requests, 1)
            cycles(scene, kelpd, row, 32, attaches)
            wait_for("clients to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
            # Who asked for /health has a descriptor until kelpd has seen that it hung up.
            wait_for("no more descriptors and mappings than before",
                     lambda: (now := held_by(kelpd.child.pid)).descriptors <= seen[0].descriptors
                     and now.mappings <= seen[0].mappings, kelpd)
            seen.append(held_by(kelpd.child.pid))
            grows = not scene.has_address_sanitizer() and seen[-1].rss_kib - seen[-2].rss_kib > SLACK_KIB
            if not grows:
                break
    print(f"     {requests} requests, {attaches} attaches: {' -> '.join(map(str, seen))}")
    expect(not grows, f"held before and after each round: {seen}")


@promise("deaths")
def a_killed_daemon_is_noticed_by_clients_that_poll_and_sleep_who_find_the_next_one(scene: Scene) -> None:
    row, folder = plain_row(scene), scene.volumes()
    with contextlib.ExitStack() as stack:
        with killed_at_the_end(scene.kelpd(folder)) as kelpd:
            wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
            clients = [SoakClient(scene, kelpd, row, spin_us) for spin_us in (POLLS, SLEEPS, SLEEPS)]
            for client in clients:
                stack.callback(client.kill)
                client.expect_event("reading")
        for client in clients:
            client.expect_event("disconnected")
        with scene.kelpd(folder) as kelpd:
            for client in clients:
                client.expect_event("reconnected")
            for client in clients:
                client.expect_event("reading")
            for client in clients:
                account = client.end()
                expect(account["right"] > 0 and account["other"] == 0 and account["failed"] == 0, f"a client: {account}")
            wait_for("clients to be gone", lambda: health(kelpd)["clients"] == 0, kelpd)
