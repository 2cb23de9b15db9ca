"""What the host does not give: hugepages, locked memory, descriptors, address space."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from damage import fixture_rows
from scene import Scene, Skipped, daemon, expect, health, is_alive, plain_row, process, promise, reads, wait_for

FEW_DESCRIPTORS = 64


def free_hugepages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("HugePages_Free")), 0)


def without_hugepages() -> None:
    if free_hugepages() > 0:
        raise Skipped("this host has free hugepages")


@promise("limits")
def hugepages_that_are_required_and_missing_refuse_the_client_with_a_remedy(scene: Scene) -> None:
    without_hugepages()
    with scene.kelpd(scene.volumes(), settings={"client.hugepages": "require"}) as kelpd:
        done = kelpd.kelpctl("read", plain_row(scene)["fid"])
        expect(done.returncode == daemon.NO_DAEMON and not done.stdout, f"exit code {done.returncode}")
        expect(b"vm.nr_hugepages" in done.stderr, f"no remedy in {done.stderr!r}")
        is_alive(kelpd)


@promise("limits")
def hugepages_that_are_preferred_and_missing_are_noted(scene: Scene) -> None:
    without_hugepages()
    with scene.kelpd(scene.volumes(), settings={"client.hugepages": "prefer"}) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, plain_row(scene)), kelpd)
        notes = health(kelpd)["notes"]
        expect(any("ordinary pages" in note for note in notes), f"/health notes {notes}")


@promise("limits")
def nothing_needs_locked_memory(scene: Scene) -> None:
    none = ["prlimit", "--memlock=0:0"]
    row = plain_row(scene)
    with scene.kelpd(scene.volumes(), prefix=none) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        done = subprocess.run([*none, kelpd.kelpctl_path, "--run-dir", kelpd.run_dir, "read", row["fid"]],
                              capture_output=True, timeout=10, check=False)
        expect(done.returncode == daemon.OK and len(done.stdout) == row["size"], f"exit code {done.returncode}: {done.stderr!r}")


@promise("limits")
def without_io_uring_files_are_read_and_it_is_said_that_other_kelpds_cannot_be(scene: Scene) -> None:
    refuse = [sys.executable, str(Path(__file__).with_name("refuse_io_uring.py"))]
    row = plain_row(scene)
    listen = {"peer.listen": f"127.0.0.1:{process.free_ports(1)[0]}"}
    with scene.kelpd(scene.volumes(), settings=listen, prefix=refuse) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        said = health(kelpd)
        expect(said["status"] == "degraded" and any("io_uring" in reason for reason in said["reasons"]), f"/health says {said['reasons']}")
        is_alive(kelpd)


class Clients:
    """Readers that stay attached."""

    def __init__(self, scene: Scene, kelpd: daemon.Daemon) -> None:
        self.scene = scene
        self.kelpd = kelpd
        self.attached: list[fixture_rows.Abi] = []

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.attached:
            one.close()

    def add(self, fid: str) -> bool:
        """False: refused."""
        one = fixture_rows.Abi(self.scene.programs / "fixture_rows", self.kelpd.run_dir)
        try:
            self.attached.append(one)
            one.read(fid)
        except (process.LabError, BrokenPipeError):
            self.attached.remove(one)
            with contextlib.suppress(BrokenPipeError):
                one.close()
            return False
        return True


@promise("limits")
def a_client_beyond_the_descriptors_is_refused_with_a_sentence_and_the_others_read_on(scene: Scene) -> None:
    row = plain_row(scene)
    few = ["prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"]
    with scene.kelpd(scene.volumes(), prefix=few) as kelpd, Clients(scene, kelpd) as clients:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        while clients.add(row["fid"]):
            expect(len(clients.attached) < FEW_DESCRIPTORS, "nobody was refused")
        expect(clients.attached, "the first client was refused already")
        for _ in range(3):
            started = time.monotonic()
            done = kelpd.kelpctl("read", row["fid"])
            expect(done.returncode == daemon.NO_DAEMON, f"a client too many: exit code {done.returncode}: {done.stderr!r}")
            expect(b"descriptors" in done.stderr, f"a client too many is told {done.stderr!r}")
            expect(time.monotonic() - started < 2, f"a client too many waited {time.monotonic() - started:.1f} s")
        expect(health(kelpd)["clients"] == len(clients.attached), f"/health says {health(kelpd)}")
        for one in clients.attached:
            expect(one.read(row["fid"]).status == "ok", "an earlier client does not read on")
        before = cpu_seconds(kelpd)
        time.sleep(1)
        expect(cpu_seconds(kelpd) - before < 0.5, f"kelpd spins: {cpu_seconds(kelpd) - before:.2f} s of CPU in one second")
        clients.attached.pop().close()
        wait_for("a place for a client again", lambda: reads(kelpd, row), kelpd)


def cpu_seconds(kelpd: daemon.Daemon) -> float:
    fields = Path(f"/proc/{kelpd.child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@promise("limits")
def volumes_beyond_the_descriptors_are_refused_and_the_daemon_stays_reachable(scene: Scene) -> None:
    folder, row = scene.volumes(), plain_row(scene)
    for vid in range(100, 150):
        for extension in ("dat", "idx", "vif"):
            (folder / f"{vid}.{extension}").write_bytes((folder / f"1.{extension}").read_bytes())
    few = ["prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"]
    with scene.kelpd(folder, prefix=few) as kelpd:
        wait_for("the first volumes", lambda: reads(kelpd, row), kelpd)
        wait_for("the last volumes to be judged", lambda: health(kelpd)["volumes"]["loading"] == 0, kelpd)
        counts = health(kelpd)["volumes"]
        expect(counts["refused"] > 0 and counts["serving"] > 5, f"volumes: {counts}")
        refused = [one for one in kelpd.volumes() if one["state"] == "refused"]
        expect(all("RLIMIT_NOFILE" in one["reason"] for one in refused), f"the reason is {refused[0]['reason']!r}")
        for _ in range(5):
            expect(reads(kelpd, row), "a volume that is served does not read")
            time.sleep(0.1)
        for vid in range(100, 150):
            (folder / f"{vid}.dat").unlink()
        wait_for("the others to be served", lambda: health(kelpd)["volumes"]["refused"] == 0
                 and health(kelpd)["volumes"]["serving"] == 10, kelpd)
        expect(health(kelpd)["status"] == "healthy", f"/health says {health(kelpd)}")


@promise("limits")
def a_client_with_little_address_space_fails_cleanly_or_reads(scene: Scene) -> None:
    if scene.has_address_sanitizer():
        raise Skipped("the address sanitizer reserves terabytes of addresses")
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        outcomes: dict[int, int] = {}
        for kib in range(4096, 65536, 512):
            def limited(*words: str) -> subprocess.CompletedProcess[bytes]:
                return subprocess.run(["prlimit", f"--as={kib * 1024}", kelpd.kelpctl_path, "--run-dir", kelpd.run_dir,
                                       *words], capture_output=True, timeout=10, check=False)
            if limited("--version").returncode != 0:
                continue  # not even its libraries fit
            done = limited("read", row["fid"])
            outcomes[kib] = done.returncode
            if done.returncode == daemon.OK:
                expect(len(done.stdout) == row["size"], f"{kib} KiB: {len(done.stdout)} bytes")
                break
            expect(0 < done.returncode <= 14 and not done.stdout and done.stderr.startswith(b"kelpctl: "),
                   f"{kib} KiB of addresses: exit code {done.returncode}, {len(done.stdout)} bytes, {done.stderr!r}")
        expect(daemon.OK in outcomes.values() and len(outcomes) > 1, f"exit codes by KiB: {outcomes}")
        is_alive(kelpd)
        expect(reads(kelpd, row), "a needle does not read afterwards")


@promise("limits")
def strangers_who_say_nothing_take_all_descriptors_for_a_moment_only(scene: Scene) -> None:
    row = plain_row(scene)
    few = ["prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"]
    for name, kind in (("attach.sock", socket.SOCK_SEQPACKET), ("control.sock", socket.SOCK_STREAM)):
        with scene.kelpd(scene.volumes(name), prefix=few) as kelpd, Clients(scene, kelpd) as clients:
            wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
            expect(clients.add(row["fid"]), "the first client was refused")
            with contextlib.ExitStack() as strangers:
                for _ in range(2 * FEW_DESCRIPTORS):
                    one = strangers.enter_context(socket.socket(socket.AF_UNIX, kind))
                    one.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        one.connect(str(kelpd.run_dir / name))
                before = cpu_seconds(kelpd)
                for _ in range(20):
                    expect(clients.attached[0].read(row["fid"]).status == "ok", "an attached client does not read on")
                    time.sleep(0.05)
                spent = cpu_seconds(kelpd) - before
                expect(spent < 0.4, f"kelpd spins over {name}: {spent:.2f} s of CPU in one second")
            wait_for("the next client", lambda: reads(kelpd, row), kelpd)
            is_alive(kelpd)


@promise("limits")
def a_kelpd_that_may_start_no_thread_says_so(scene: Scene) -> None:
    as_nobody = scene.as_nobody()
    if not as_nobody:
        raise Skipped("needs root: the limit counts all of a user's processes")
    programs = scene.programs_for_nobody()
    run_dir = scene.home / "run"
    run_dir.mkdir()
    scene.for_nobody(run_dir)
    command = [*as_nobody, "prlimit", "--nproc=1:1", programs / "kelpd", "--volume-dir", scene.volumes(), "--run-dir", run_dir]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    expect(done.returncode == 1, f"exit code {done.returncode}: {done.stderr!r}")
    expect(b"cannot start the threads" in done.stderr and b"RLIMIT_NPROC" in done.stderr, f"no sentence in {done.stderr!r}")


SILENT_RESOLVER = "127.0.0.77"


@contextlib.contextmanager
def silent_resolver(scene: Scene) -> Iterator[list[str]]:
    """A command prefix: who runs by it looks names up where nobody answers."""
    if os.geteuid() != 0:
        raise Skipped("not root")
    conf = scene.home / "resolv.conf"
    conf.write_text(f"nameserver {SILENT_RESOLVER}\noptions timeout:10 attempts:2\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.bind((SILENT_RESOLVER, 53))
        except OSError as error:
            raise Skipped(f"{SILENT_RESOLVER}:53: {error}") from error
        prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {conf} /etc/resolv.conf && exec "$@"', "sh"]
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
            raise Skipped("no mount namespace can be made")
        yield prefix
        asked.setblocking(False)
        expect(asked.recv(512), "nobody was asked for the name, so this proves nothing")


@promise("limits")
def a_master_whose_name_is_not_answered_holds_up_its_reads_alone(scene: Scene) -> None:
    row = plain_row(scene)
    with silent_resolver(scene) as prefix:
        with scene.kelpd(scene.volumes(), settings={"gateway.masters": ["master.test:9333"]}, prefix=prefix) as kelpd:
            wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
            for _ in range(3):
                began = time.monotonic()
                done = kelpd.kelpctl("read", "4711,01637037d6", "--timeout", "500")
                expect(done.returncode in (daemon.UNAVAILABLE, daemon.TIMEOUT), f"exit code {done.returncode}: {done.stderr!r}")
                expect(health(kelpd)["status"] != "failed" and reads(kelpd, row), "what needs no name is not answered")
                took_s = time.monotonic() - began
                expect(took_s < 3, f"a read of 0.5 s, /health and another read took {took_s:.1f} s")
            is_alive(kelpd)
            began = time.monotonic()
        expect(time.monotonic() - began < 5, f"kelpd took {time.monotonic() - began:.1f} s to end")
