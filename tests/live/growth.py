"""What processes hold of what another host can make them hold, and whether the same work makes it more each time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kelplab import daemon

# What the allocator may keep of what it was given.
SLACK, SLACK_KIB = 0.02, 1024
ROUNDS = 3


@dataclass(frozen=True)
class Held:
    """What a process has, of what another host can make it have."""

    rss_kib: int
    descriptors: int
    threads: int

    @staticmethod
    def by(kelpd: daemon.Daemon, weed_ports: set[int]) -> Held:
        """But for connections to weed, of which some are kept for the next read."""
        proc = Path(f"/proc/{kelpd.child.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        inodes = _connected_to(weed_ports)
        descriptors = [name for entry in (proc / "fd").iterdir() if (name := _link_of(entry))]
        return Held(int(status["VmRSS"].split()[0]), sum(name not in inodes for name in descriptors), int(status["Threads"]))

    def is_more_than(self, before: Held) -> bool:
        may_have_kib = before.rss_kib + max(SLACK_KIB, int(SLACK * before.rss_kib))
        return self.rss_kib > may_have_kib or self.descriptors > before.descriptors or self.threads > before.threads


# By whose it is: Held, or a count of something, which is never to change.
All = dict[str, Any]
T = TypeVar("T")


def rounds(at_rest: Callable[[All | None], All], work: Callable[[], None]) -> tuple[list[All], list[str]]:
    """What they held before and after each round of work; and who holds more after each, or another count than at first.

    There is one round, and up to ROUNDS while something is more: memory that is used for the first time makes it more once, what
    leaks makes it more each time. at_rest(before) looks once all stands still, or is no more than `before`."""
    seen = [at_rest(None)]
    before = seen[0]
    for _ in range(ROUNDS):
        work()
        seen.append(at_rest(before))
        if not (more := grown(before, seen[-1])):
            break
        before = {name: replace(held, rss_kib=seen[-1][name].rss_kib) if isinstance(held, Held) else held
                  for name, held in before.items()}
    return seen, [f"what the {name} had before and after each round: {', '.join(str(each[name]) for each in seen)}" for name in more]


def grown(before: All, now: All) -> list[str]:
    """Which of them have more than before."""
    return [name for name, held in before.items()
            if (now[name].is_more_than(held) if isinstance(held, Held) else now[name] != held)]


def settled(look: Callable[[], T], is_fine: Callable[[T], bool] | None, patience_s: float) -> T:
    """What is seen once it is fine, or else once two looks agree; what is seen last, when the patience is over. kelpd holds a
    descriptor more for as long as it looks through its directories."""
    give_up = time.monotonic() + patience_s
    last, now = None, look()
    while not (is_fine(now) if is_fine else now == last) and time.monotonic() < give_up:
        time.sleep(0.2)
        last, now = now, look()
    return now


def _link_of(entry: Path) -> str:
    """Empty where it has gone meanwhile."""
    try:
        return os.readlink(entry)
    except FileNotFoundError:
        return ""


def _connected_to(ports: set[int]) -> set[str]:
    """Sockets of this host that are connected to these, as /proc/PID/fd names them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[2].partition(":")[2], 16) in ports}
