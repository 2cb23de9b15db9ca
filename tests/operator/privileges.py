"""Started as root, kelpd becomes somebody else."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from control_socket import ask
from scene import Scene, Skipped, expect, plain_row, process, promise, reads, wait_for

USER, GROUP = "nobody", "daemon"


def needs_root() -> None:
    if os.geteuid() != 0:
        raise Skipped("needs root")
    try:
        pwd.getpwnam(USER), grp.getgrnam(GROUP)
    except KeyError as error:
        raise Skipped(str(error)) from None


def status_of(task: Path) -> dict[str, list[str]]:
    lines = (task / "status").read_text().splitlines()
    return {name: rest.split() for name, rest in (line.split(":", 1) for line in lines)}


def volumes_of_group(scene: Scene) -> Path:
    """Volumes that only root and the group may read."""
    volumes = scene.volumes()
    gid = grp.getgrnam(GROUP).gr_gid
    for path in (volumes, *volumes.iterdir()):
        os.chown(path, 0, gid)
        path.chmod(0o750 if path.is_dir() else 0o640)
    scene.home.chmod(0o755)
    return volumes


@promise("privileges")
def every_thread_is_the_user_without_a_way_back(scene: Scene) -> None:
    needs_root()
    settings = {"daemon.user": USER, "daemon.group": GROUP}
    with scene.kelpd(volumes_of_group(scene), settings=settings) as kelpd:
        row = plain_row(scene)
        wait_for("a needle of files that the group may read", lambda: reads(kelpd, row), kelpd)
        uid, gid = str(pwd.getpwnam(USER).pw_uid), str(grp.getgrnam(GROUP).gr_gid)
        groups = {str(one) for one in os.getgrouplist(USER, int(gid))}
        tasks = list(Path(f"/proc/{kelpd.child.pid}/task").iterdir())
        expect(len(tasks) >= 4, f"only {len(tasks)} threads")
        for task in tasks:
            found = status_of(task)
            expect(found["Uid"] == [uid] * 4 and found["Gid"] == [gid] * 4, f"{found['Uid']} {found['Gid']}")
            expect(set(found["Groups"]) == groups, f"groups {found['Groups']}, not {groups}")
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                expect(int(found[kind][0], 16) == 0, f"{kind} {found[kind]}")
            expect(found["NoNewPrivs"] == ["1"], "no_new_privs is not set")


@promise("privileges")
def the_sockets_are_the_users_and_go_with_it(scene: Scene) -> None:
    needs_root()
    # The lab makes the run directory, and kelpd gives away only what it has made: one below it.
    lab = scene.kelpd(volumes_of_group(scene), settings={"daemon.user": USER, "daemon.group": GROUP})
    run_dir = lab.run_dir / "made"
    lab.run_dir.mkdir()
    lab.arguments[lab.arguments.index(lab.run_dir)] = run_dir
    kelpd = process.Child("kelpd", lab.arguments, lab.log)
    try:
        process.wait_until("the control socket", (run_dir / "control.sock").exists, [kelpd])
        process.wait_until("the lock file", lambda: (run_dir / "kelpd.lock").exists(), [kelpd])
        lab.run_dir = run_dir
        process.wait_until("an answer", lambda: lab.kelpctl("health").returncode == 0, [kelpd])
        for name in ("", "attach.sock", "control.sock", "kelpd.lock"):
            found = (run_dir / name).stat()
            expect((found.st_uid, found.st_gid) == (pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid), f"{name or 'made'} is {found}")
        expect(ask(lab, "POST", "/reload")[0] == 200, "a reload needs root")
    finally:
        code = kelpd.stop()
    expect(code == 0, f"exit code {code}: {kelpd.log_tail()}")
    expect(not (run_dir / "attach.sock").exists(), "the socket is left behind")


@promise("privileges")
def who_cannot_become_the_user_all_the_way_does_not_start(scene: Scene) -> None:
    needs_root()
    volumes = volumes_of_group(scene)
    for capability in ("setgid", "setuid"):
        less = ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}", "--"]
        code, words = start(scene, volumes, {"daemon.user": USER}, less)
        expect(code == 1 and f"cannot become the user {USER}" in words, f"without CAP_{capability}: {code}, {words}")


@promise("privileges")
def a_user_that_cannot_be_is_refused_by_name(scene: Scene) -> None:
    volumes = scene.volumes()
    for settings, word in (({"daemon.user": "no-such-user"}, "there is no user no-such-user"),
                           ({"daemon.user": "root", "daemon.group": "no-such-group"}, "there is no group no-such-group"),
                           ({"daemon.group": "root"}, "without daemon.user")):
        code, words = start(scene, volumes, settings, [])
        expect(code == 1 and word in words, f"{settings}: {code}, {words}")


def start(scene: Scene, volumes: Path, settings: dict[str, object], prefix: list[str]) -> tuple[int, str]:
    config = scene.config_file(settings)
    return scene.start_in_vain("--config", config, "--volume-dir", volumes, "--run-dir", scene.home / "vain", prefix=prefix)
