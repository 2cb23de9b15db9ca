"""Run directories that are taken, left over, closed or too long; configurations that are wrong."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scene import Scene, daemon, expect, killed_at_the_end, plain_row, promise, reads, wait_for


@promise("run directories")
def a_second_kelpd_on_a_run_directory_ends_and_names_the_first(scene: Scene) -> None:
    folder, row = scene.volumes(), plain_row(scene)
    with scene.kelpd(folder) as kelpd:
        code, said = scene.start_in_vain("--volume-dir", folder, "--run-dir", kelpd.run_dir)
        expect(code == 1, f"exit code {code}: {said}")
        expect(f"pid {kelpd.child.pid})" in said and str(kelpd.run_dir) in said, f"it says {said!r}")
        wait_for("the first to read", lambda: reads(kelpd, row), kelpd)


@promise("run directories")
def what_a_killed_kelpd_left_is_no_hindrance(scene: Scene) -> None:
    folder, row = scene.volumes(), plain_row(scene)
    for _ in range(3):
        with killed_at_the_end(scene.kelpd(folder)) as kelpd:
            wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        expect((kelpd.run_dir / "attach.sock").exists(), "there is no stale socket: the case proves nothing")
        code, body = kelpd.read(row["fid"])
        expect(code == daemon.NO_DAEMON and not body, f"with nobody there: exit code {code}")
    with scene.kelpd(folder) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)


@promise("run directories")
def a_run_directory_that_may_not_be_written_is_named(scene: Scene) -> None:
    folder = scene.volumes()
    closed = scene.home / "closed"
    closed.mkdir(mode=0o555)
    open_to_nobody = replace(scene, programs=scene.programs_for_nobody())
    for run_dir in (closed, closed / "inside"):
        code, said = open_to_nobody.start_in_vain("--volume-dir", folder, "--run-dir", run_dir, prefix=scene.as_nobody())
        expect(code == 1 and str(run_dir) in said and "Permission denied" in said, f"exit code {code}: {said!r}")


def is_a_file(path: Path) -> None:
    path.touch()


def is_a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def anybody_writes_there(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def holds_a_file_for_a_socket(path: Path) -> None:
    path.mkdir()
    (path / "attach.sock").touch()


def holds_a_directory_for_a_socket(path: Path) -> None:
    path.mkdir()
    (path / "control.sock").mkdir()


def holds_a_link_for_a_lock(path: Path) -> None:
    path.mkdir()
    (path / "kelpd.lock").symlink_to("/etc/passwd")


def holds_a_directory_for_a_lock(path: Path) -> None:
    path.mkdir()
    (path / "kelpd.lock").mkdir()


def holds_a_pipe_for_a_lock(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "kelpd.lock")


@promise("run directories")
def a_run_directory_that_is_anything_else_is_named(scene: Scene) -> None:
    folder = scene.volumes()
    obstacles: list[Callable[[Path], None]] = [
        is_a_file, is_a_link_to_itself, anybody_writes_there, holds_a_file_for_a_socket, holds_a_directory_for_a_socket,
        holds_a_link_for_a_lock, holds_a_directory_for_a_lock, holds_a_pipe_for_a_lock]
    for obstacle in obstacles:
        path = scene.home / obstacle.__name__
        obstacle(path)
        code, said = scene.start_in_vain("--volume-dir", folder, "--run-dir", path)
        expect(code == 1 and str(path) in said, f"{obstacle.__name__}: exit code {code}: {said!r}")


@promise("run directories")
def a_socket_somebody_else_answers_on_is_left_alone(scene: Scene) -> None:
    folder, run_dir = scene.volumes(), scene.home / "taken"
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(run_dir / "attach.sock"))
        other.listen()
        code, said = scene.start_in_vain("--volume-dir", folder, "--run-dir", run_dir)
        expect(code == 1 and "another process answers" in said, f"exit code {code}: {said!r}")
        expect((run_dir / "attach.sock").exists(), "its socket was removed")


@promise("run directories")
def a_run_directory_too_long_for_a_socket_is_refused_by_daemon_and_tool(scene: Scene) -> None:
    folder = scene.volumes()
    for length in (95, 108, 5000, 100_000):
        path = str(scene.home / "x").ljust(length, "x")
        code, said = scene.start_in_vain("--volume-dir", folder, "--run-dir", path)
        expect(code == 1 and ("run-dir" in said or "run_dir" in said), f"{length} bytes: exit code {code}: {said!r:.300}")
    with daemon.Daemon(scene.programs, scene.home, folder) as kelpd:
        for length in (95, 108, 5000, 100_000):
            for command in (["read", "3,01637037d6"], ["health"]):
                done = subprocess.run([kelpd.kelpctl_path, "--run-dir", path.ljust(length, "x"), *command],
                                      capture_output=True, timeout=10, check=False)
                expect(0 < done.returncode <= 14 and not done.stdout and done.stderr.startswith(b"kelpctl: "),
                       f"kelpctl {command[0]} with {length} bytes: exit code {done.returncode}: {done.stderr!r:.300}")


@promise("run directories")
def a_configuration_error_ends_the_start_and_names_its_line(scene: Scene) -> None:
    folder = scene.volumes()
    sound = f'[daemon]\nrun_dir = "{scene.home}/run"\n[[target.directory]]\npath = "{folder}"\n'
    file = scene.home / "case.toml"
    wrong = {
        "an unknown key": (sound + "[worker]\nspin = 3\n", 6),
        "an unknown section": (sound + "[wroker]\n", 5),
        "out of range": (sound + "[worker]\n# five\nspin_us = 900000\n", 7),
        "of a wrong kind": (sound + '[worker]\nspin_us = "soon"\n', 6),
        "beyond 64 bits": (sound + "[worker]\nspin_us = 99999999999999999999\n", 6),
        "twice": (sound + "[worker]\nspin_us = 1\nspin_us = 2\n", 7),
        "not TOML": (sound + "what is this\n", 5),
        "a directory that is not there": (sound + '[[target.directory]]\npath = "/no/such/dir"\n', 6),
        "a directory twice": (sound + f'[[target.directory]]\npath = "{folder}"\n', 6),
        "a bad mode": (sound + '[client]\nsocket_mode = "0777"\n', 6),
        "a run directory too long": (f'[[target.directory]]\npath = "{folder}"\n[daemon]\nrun_dir = "/{"x" * 95}"\n', 4),
    }
    for what, (text, line) in wrong.items():
        file.write_text(text)
        for more in ([], ["--check"]):
            code, said = scene.start_in_vain("--config", file, *more)
            expect(code == 1 and f"{file}:{line}:" in said, f"{what}: exit code {code}, not 1 with :{line}: {said!r}")
    start = sound.encode()
    for what, content in {"binary": random.Random(scene.seed).randbytes(5000), "NUL": start + b"\0", "not UTF-8": start + b"# \xff\n",
                          "too large": start + b"# \n" * 200_000, "a long line": start + b"#" * 5000,
                          "nothing to serve": b"[worker]\n", "empty": b""}.items():
        file.write_bytes(content)
        code, said = scene.start_in_vain("--config", file)
        expect(code == 1 and said.startswith("kelpd: "), f"{what}: exit code {code}: {said!r}")
    os.mkfifo(scene.home / "pipe.toml")
    for path in (scene.home / "pipe.toml", scene.home, scene.home / "no-such.toml", Path("/dev/zero")):
        code, said = scene.start_in_vain("--config", path)
        expect(code == 1 and str(path) in said, f"{path}: exit code {code}: {said!r}")


@promise("run directories")
def check_tells_a_sound_configuration_and_starts_nothing(scene: Scene) -> None:
    folder = scene.volumes()
    done = subprocess.run([scene.programs / "kelpd", "--check", "--volume-dir", folder, "--run-dir", scene.home / "run"],
                          capture_output=True, timeout=10, check=False)
    expect(done.returncode == 0 and b"sound" in done.stdout, f"exit code {done.returncode}: {done.stderr!r}")
    expect(not (scene.home / "run").exists(), "it made the run directory")
    code, said = scene.start_in_vain("--check", "--volume-dir", scene.home / "no-such", "--run-dir", scene.home / "run")
    expect(code == 1 and "no-such" in said, f"exit code {code}: {said!r}")
