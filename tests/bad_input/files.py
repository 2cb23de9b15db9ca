"""Volume files and directories that are not what they should be."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from scene import Scene, Skipped, daemon, expect, health, is_alive, plain_row, promise, reads, wait_for

OTHERS = 9  # volumes of the fixtures beside the one that is tampered with
TO_START_S = 5.0
MOST_RSS_KIB = 256 * 1024


def volume(kelpd: daemon.Daemon, vid: int) -> dict[str, Any]:
    """The row of /volumes; empty when there is none."""
    return next((row for row in kelpd.volumes() if row["id"] == vid), {})


def serving(kelpd: daemon.Daemon) -> int:
    return sum(row["state"] == "serving" for row in kelpd.volumes())


def only_volume_1_suffers(scene: Scene, folder: Path, reason: str) -> None:
    """Volume 1 is refused with `reason`; all others are served, and /health tells."""
    mine, other = plain_row(scene), plain_row(scene, 8, 2000)
    with scene.kelpd(folder) as kelpd:
        wait_for("the other volumes", lambda: serving(kelpd) == OTHERS, kelpd)
        expect(reads(kelpd, other), "another volume does not read")
        code, body = kelpd.read(mine["fid"])
        expect(code == daemon.UNAVAILABLE and not body, f"a needle of the volume: exit code {code}")
        wait_for("volume 1 to be refused", lambda: volume(kelpd, 1).get("state") == "refused", kelpd)
        found = volume(kelpd, 1)
        expect(found.get("state") == "refused" and reason in found["reason"], f"/volumes says {found}, not {reason!r}")
        expect(health(kelpd)["status"] == "degraded", f"/health says {health(kelpd)}")
        is_alive(kelpd)


@promise("files")
def rows_past_the_end_of_the_file_are_corrupt_and_the_rest_is_read(scene: Scene) -> None:
    folder = scene.volumes()
    wide = scene.fixtures.name == "v5b"
    most = (1 << (40 if wide else 32)) - 1  # of 8-byte units
    beyond = {0x7001: (1 << 20, 100), 0x7002: (most, 100), 0x7003: (1 << 20, 0x7FFFFFFF), 0x7004: (most, 0x7FFFFFFF),
              0x7005: (0, 100), 0x7006: (1, 0x7FFFFFFF), 0x7007: (1, -2), 0x7008: (1, -0x80000000)}
    with (folder / "1.idx").open("ab") as idx:
        for needle, (units, size) in beyond.items():
            low, high = units & 0xFFFFFFFF, units >> 32
            idx.write(struct.pack(">QI", needle, low) + (bytes([high]) if wide else b"") + struct.pack(">i", size))
    with scene.kelpd(folder) as kelpd:
        wait_for("the volumes", lambda: serving(kelpd) == OTHERS + 1, kelpd)
        for needle, (units, size) in beyond.items():
            code, body = kelpd.read(f"1,{needle:x}00000001")
            wanted = daemon.NOT_FOUND if units == 0 or size < 0 else daemon.CORRUPT
            expect(code == wanted and not body, f"a row at {units} units, {size} bytes: exit code {code}, not {wanted}")
        expect(reads(kelpd, plain_row(scene)), "a sound needle of the same volume does not read")
        is_alive(kelpd)


@promise("files")
def an_index_of_zeroes_says_nothing_and_harms_no_other_volume(scene: Scene) -> None:
    folder = scene.volumes()
    (folder / "1.idx").write_bytes(bytes(1 << 20))
    with scene.kelpd(folder) as kelpd:
        wait_for("the volumes", lambda: serving(kelpd) >= OTHERS, kelpd)
        code, body = kelpd.read(plain_row(scene)["fid"])
        expect(code in (daemon.NOT_FOUND, daemon.UNAVAILABLE) and not body, f"exit code {code}")
        expect(reads(kelpd, plain_row(scene, 8, 2000)), "another volume does not read")
        is_alive(kelpd)


@promise("files")
def an_index_that_is_a_directory_is_refused(scene: Scene) -> None:
    folder = scene.volumes()
    (folder / "1.idx").unlink()
    (folder / "1.idx").mkdir()
    only_volume_1_suffers(scene, folder, "not regular files")


@promise("files")
def data_that_is_a_directory_is_refused(scene: Scene) -> None:
    folder = scene.volumes()
    (folder / "1.dat").unlink()
    (folder / "1.dat").mkdir()
    only_volume_1_suffers(scene, folder, "not regular files")


@promise("files")
def a_pipe_in_place_of_any_file_keeps_nobody_waiting(scene: Scene) -> None:
    for extension, reason in (("dat", "not regular files"), ("idx", "not regular files")):
        folder = scene.volumes(f"vs-{extension}")
        (folder / f"1.{extension}").unlink()
        os.mkfifo(folder / f"1.{extension}")
        only_volume_1_suffers(scene, folder, reason)


@promise("files")
def a_socket_in_place_of_any_file_is_refused(scene: Scene) -> None:
    for extension in ("dat", "idx"):
        folder = scene.volumes(f"vs-{extension}")
        path = folder / f"1.{extension}"
        path.unlink()
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
        only_volume_1_suffers(scene, folder, f"cannot open {path}")


@promise("files")
def links_in_a_loop_and_to_nowhere_are_refused(scene: Scene) -> None:
    for name, target in (("loop", "1.dat"), ("nowhere", "gone.dat")):
        folder = scene.volumes(f"vs-{name}")
        (folder / "1.dat").unlink()
        (folder / "1.dat").symlink_to(target)
        only_volume_1_suffers(scene, folder, "cannot open")


@promise("files")
def a_vif_that_is_not_understood_keeps_its_volume_closed(scene: Scene) -> None:
    for name in ("directory", "rubbish"):
        folder = scene.volumes(f"vs-{name}")
        path = folder / "1.vif"
        path.unlink()
        if name == "directory":
            path.mkdir()
        else:
            path.write_bytes(random.Random(scene.seed).randbytes(5000))
        only_volume_1_suffers(scene, folder, "1.vif")


@promise("files")
def a_directory_that_may_not_be_read_is_named_and_the_other_served(scene: Scene) -> None:
    folder, locked = scene.volumes(), scene.volumes("locked")
    prefix = scene.as_nobody()
    (scene.home / "run").mkdir()
    scene.for_nobody(scene.home / "run")
    locked.chmod(0)
    try:
        open_to_nobody = replace(scene, programs=scene.programs_for_nobody())
        with open_to_nobody.kelpd(folder, locked, prefix=prefix) as kelpd:
            wait_for("the volumes", lambda: serving(kelpd) == OTHERS + 1, kelpd)
            reasons = health(kelpd)["reasons"]
            expect(any(str(locked) in reason for reason in reasons), f"/health does not name it: {reasons}")
            expect(reads(kelpd, plain_row(scene)), "the other directory does not read")
            locked.chmod(0o755)
            wait_for("the reason to go", lambda: str(locked) not in str(health(kelpd)["reasons"]), kelpd)
    finally:
        locked.chmod(0o755)


@promise("files")
def ten_thousand_files_that_are_no_volumes_cost_nothing(scene: Scene) -> None:
    folder = scene.volumes()
    names = ("note{}.txt", "{}.dat.bak", "x{}.idx", ".{}", "{}_.dat", "-{}.dat", "99999999999{}.dat", "{}.cpd")
    for number in range(10_000):
        (folder / names[number % len(names)].format(number)).touch()
    started = time.monotonic()
    with scene.kelpd(folder) as kelpd:
        wait_for("the volumes", lambda: serving(kelpd) == OTHERS + 1, kelpd)
        took = time.monotonic() - started
        expect(len(kelpd.volumes()) == OTHERS + 1, f"{len(kelpd.volumes())} volumes")
        expect(reads(kelpd, plain_row(scene)), "a needle does not read")
        if not scene.has_address_sanitizer():  # it costs both time and memory
            expect(took < TO_START_S, f"served after {took:.1f} s")
            status = Path(f"/proc/{kelpd.child.pid}/status").read_text()
            rss_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            expect(rss_kib < MOST_RSS_KIB, f"{rss_kib} KiB in memory")


@promise("files")
def ten_thousand_broken_volumes_are_refused_one_by_one(scene: Scene) -> None:
    folder = scene.volumes()
    for number in range(100_000, 110_000):
        (folder / f"{number}.dat").touch()
    row = plain_row(scene)
    with scene.kelpd(folder) as kelpd:
        wait_for("the sound ones", lambda: reads(kelpd, row), kelpd)
        wait_for("the count of the others",
                 lambda: any("10000 volumes cannot be opened" in reason for reason in health(kelpd)["reasons"]), kelpd)
        slowest = max(timed_read(kelpd, row) for _ in range(20))
        expect(slowest < 2.0, f"a read took {slowest:.1f} s beside them")


def timed_read(kelpd: daemon.Daemon, row: dict[str, Any]) -> float:
    started = time.monotonic()
    expect(reads(kelpd, row), "a needle does not read")
    return time.monotonic() - started


@promise("files")
def a_file_system_that_may_lie_is_named_and_its_files_not_read(scene: Scene) -> None:
    with scene.kelpd(scene.volumes(), Path("/proc")) as kelpd:
        wait_for("the volumes", lambda: serving(kelpd) == OTHERS + 1, kelpd)
        reasons = health(kelpd)["reasons"]
        expect(any("/proc is on file system proc" in reason for reason in reasons), f"/health says {reasons}")
        expect(reads(kelpd, plain_row(scene)), "the other directory does not read")


@promise("files")
def volumes_on_a_file_system_that_may_lie_are_left_to_http(scene: Scene) -> None:
    mount = scene.home / "ramfs"
    mount.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "ramfs", "kelp-test", mount], capture_output=True,
                                           check=False).returncode != 0:
        raise Skipped("a ramfs can be mounted by root alone")
    try:
        folder = scene.volumes()
        for extension in ("dat", "idx"):  # links: the directory itself is sound
            shutil.move(folder / f"1.{extension}", mount)
            (folder / f"1.{extension}").symlink_to(mount / f"1.{extension}")
        with scene.kelpd(folder, mount) as kelpd:
            wait_for("the volumes", lambda: serving(kelpd) == OTHERS, kelpd)
            code, body = kelpd.read(plain_row(scene)["fid"])
            expect(code == daemon.USE_HTTP and not body, f"exit code {code}")
            expect(any(str(mount) in reason for reason in health(kelpd)["reasons"]), f"/health: {health(kelpd)}")
            expect("ramfs" in volume(kelpd, 1)["reason"], f"/volumes: {volume(kelpd, 1)}")
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


@promise("files")
def a_directory_that_vanishes_is_served_again_when_it_is_back(scene: Scene) -> None:
    folder, row = scene.volumes(), plain_row(scene)
    away = scene.home / "away"
    with scene.kelpd(folder) as kelpd:
        for how in ("moved away", "deleted"):
            wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
            folder.rename(away) if how == "moved away" else shutil.rmtree(folder)
            wait_for(f"the directory to be missed, {how}", lambda: kelpd.read(row["fid"])[0] == daemon.UNAVAILABLE, kelpd)
            wait_for("/health to name it", lambda: str(folder) in str(health(kelpd)["reasons"]), kelpd)
            wait_for("all volumes to be missed", lambda: health(kelpd)["status"] == "failed", kelpd)
            away.rename(folder) if how == "moved away" else scene.volumes()
            wait_for("a needle to read again", lambda: reads(kelpd, row), kelpd)
            wait_for("health again", lambda: health(kelpd)["status"] == "healthy", kelpd)
