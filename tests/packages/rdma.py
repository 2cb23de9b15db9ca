#!/usr/bin/env python3
"""The units with an RDMA device: the packages are installed in a container inside the guest of scripts/soft-roce, where a gateway
reads from a target by RDMA, both in the sandbox of their units and configured by the samples.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 there can be no such guest or container here, or weed cannot
be had.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run as whole  # noqa: E402  (adds the paths that the rest needs)
import container  # noqa: E402
from kelplab import process  # noqa: E402

ADDRESS = "10.9.0.1"  # of rxe0
LIMIT_S = 700
# Its systemd may say what devices a unit gets, which takes programs in the kernel.
OPTIONS = ("--bind=/dev/infiniband", "--system-call-filter=bpf", "--capability=all")
RDMA_DEVICES = {"/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"}
ORDINARY_DEVICES = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "pts/ptmx")}
INSIDE = "--inside"


def outside(built: Path, binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
    """Prepares what takes long where nothing is emulated, and boots the guest."""
    packages, _, root = whole.prepare(built, binary, home, say)
    say("starting the guest")
    script = whole.ROOT / "scripts" / "soft-roce" / "run-in-guest.sh"
    argv = [script, "--limit", str(LIMIT_S), "--", sys.executable, Path(__file__).resolve(), INSIDE, home, root, *packages]
    guest = process.Child("the guest", argv, home / "guest.log")
    try:
        code = guest.process.wait(LIMIT_S + 60)
    except subprocess.TimeoutExpired:
        guest.stop()
        raise process.LabError(f"the guest does not end:\n{guest.log_tail(40)}") from None
    if code == whole.verdict.SKIPPED:
        raise container.Unavailable(guest.log_tail(1).strip())
    if code != 0:
        raise process.LabError(f"in the guest (exit code {code}):\n{guest.log_tail(60)}")
    print(guest.log.read_text(), end="")
    return {}, []


def inside(home: Path, root: Path, packages: Sequence[Path]) -> int:
    """In the guest, whose files are those of outside under a layer of its own."""
    Path("/dev/hugepages").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    say = process.Progress()
    say("starting the container")
    try:
        with container.booted(root, home / "stage", Path("/tmp/container.log"), *OPTIONS,
                              patience_s=container.PATIENCE_IN_GUEST_S) as host:
            operator = whole.Operator(host, packages, [], say, ADDRESS)
            operator.rows = operator.rows[:3]
            with operator.told_of_failures():
                scene(operator)
    except process.LabError as error:
        print(f"failed: {error}")
        return 1
    for one in operator.broken:
        print(f"BROKEN: {one}")
    return 1 if operator.broken else 0


def scene(operator: whole.Operator) -> None:
    operator.step("weed", operator.weed)
    operator.step("install", operator.install)
    operator.step("configure", operator.configure)
    operator.host.run("sed", "-i", r"s/^# \(\[rdma\]\|listen = \)/\1/", "/etc/kelp/target.toml")
    operator.step("start", operator.start)
    operator.step("read by RDMA", functools.partial(operator.read, "verbs", "by RDMA"))
    as_units = ("systemd-run", "--quiet", "--wait", "-p", "PrivateDevices=yes", "-p", "BindPaths=/dev/infiniband")
    for device in RDMA_DEVICES:
        done = operator.host.run(*as_units, "sh", "-c", f": <{device}", ok=False)
        operator.expect(done.returncode != 0, f"{device} can be opened without DeviceAllow=: nothing is proven here")
    for unit in whole.UNITS:
        inside_it = ("nsenter", f"--target={operator.state(unit, 'MainPID')}", "--mount")
        seen = set(operator.host.text(*inside_it, "find", "/dev", "-type", "c", "-o", "-type", "b").splitlines())
        operator.expect(RDMA_DEVICES <= seen <= RDMA_DEVICES | ORDINARY_DEVICES, f"{unit} sees the devices {seen}")


if __name__ == "__main__":
    if sys.argv[1:2] == [INSIDE]:
        sys.exit(inside(Path(sys.argv[2]), Path(sys.argv[3]), [Path(name) for name in sys.argv[4:]]))
    sys.exit(whole.finish("packages-rdma", __doc__, outside))
