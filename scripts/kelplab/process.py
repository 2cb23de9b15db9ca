"""Child processes that never outlive the program that started them, and waiting with a deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class LabError(Exception):
    """Something a person has to read; the message is whole sentences."""


class Child:
    """One process of ours: its log is a file, it is ended by its own pid.

    The kernel kills it when the thread that started it dies (`setpriv --pdeathsig`), so start it from the main thread.
    With keep=True it is left alone instead, until somebody stops it.
    """

    def __init__(self, name: str, argv: Sequence[str | Path], log: Path, *, keep: bool = False,
                 env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self.name = name
        self.log = log
        self.keep = keep
        words = [str(word) for word in argv]
        if not keep:
            words = ["setpriv", "--pdeathsig", "KILL", *words]
        with log.open("ab") as sink:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we end the children in order.
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, cwd=cwd,
                                            start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def stop(self, grace_s: float = 15) -> int:
        """SIGTERM, then SIGKILL when the grace is over. Answers the exit code; negative: the signal it died of."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def log_tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join("    " + line for line in text.splitlines()[-lines:])


def wait_until(what: str, probe: Callable[[], object], children: Sequence[Child], deadline_s: float = 30) -> None:
    """Polls until probe() is true. A child that ended, or the deadline, is a LabError with the ends of the logs."""
    give_up = time.monotonic() + deadline_s
    while not probe():
        ended = [child for child in children if child.exit_code() is not None]
        if not ended and time.monotonic() < give_up:
            time.sleep(0.03)
            continue
        if ended:
            why = ", ".join(f"{child.name} ended with exit code {child.exit_code()}" for child in ended)
        else:
            why = f"not within {deadline_s:.0f} s"
        logs = "\n".join(f"  end of {child.log}:\n{child.log_tail()}" for child in ended or children)
        raise LabError(f"waiting for {what}: {why}.\n{logs}")


def cpu_s(pid: int) -> float:
    """CPU seconds of all of a process's threads, as the kernel has accounted them."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            total_ns += int(task.read_text().split()[0])
    return total_ns / 1e9


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def worker_and_client_cpus() -> tuple[list[str], list[str]]:
    """Flags of kelpd and a command prefix for the program that is measured, so that the two never share a CPU.

    On a busy machine the scheduler may leave a spinning client on the CPU its worker is pinned to, for seconds: a read
    then takes as long as the client spins. With one CPU there is nothing to separate.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return [], []
    return ["--cpus", str(cpus[-1])], ["taskset", "--cpu-list", ",".join(map(str, cpus[:-1]))]


@contextlib.contextmanager
def scratch_dir(prefix: str, *, keep: bool = False) -> Iterator[Path]:
    """A directory that is gone afterwards, unless all went well and it is to be kept.

    In /tmp, not in the build: the path of a socket holds 107 characters.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))
    gone = True
    try:
        yield path
        gone = not keep
    finally:
        if gone:
            shutil.rmtree(path, ignore_errors=True)


def exit_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP unwind, so that what was started is stopped. Further ones do not disturb that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, _frame: object) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        print(f"{signal.Signals(number).name}: stopping what was started", file=sys.stderr)
        raise SystemExit(128 + number)

    for one in numbers:
        signal.signal(one, unwind)


class Progress:
    """Lines with the seconds since the start. KELP_STARTED (Unix seconds) carries the start over from a calling script."""

    def __init__(self) -> None:
        self.started = float(os.environ.get("KELP_STARTED", time.time()))

    def __call__(self, line: str) -> None:
        print(f"[{time.time() - self.started:6.1f} s] {line}", file=sys.stderr, flush=True)
