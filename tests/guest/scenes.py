#!/usr/bin/env python3
"""What is tested where there is an RDMA device: inside the guest of scripts/soft-roce/run-in-guest.sh.

devices: /devices and kelpctl devices show rxe0, its address, and that it is usable; a port that is down is not, nor is a
         device whose files in /dev the daemon cannot see, as in a service with PrivateDevices=.

Exit code: 0 all promises held, 1 one was broken or something failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from kelplab import daemon, process, weed  # noqa: E402

ADDRESS = "::ffff:10.9.0.1"


class Scenes:
    def __init__(self, programs: Path, home: Path) -> None:
        self.programs, self.home = programs, home
        self.broken: list[str] = []

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def devices(self) -> None:
        volumes = self.home / "volumes"
        volumes.mkdir()
        with daemon.Daemon(self.programs, self.home, volumes) as kelpd:
            found = self._devices(kelpd)
            self.expect([device["name"] for device in found] == ["rxe0"], f"devices: {found}")
            port = found[0]["ports"][0]
            self.expect(port["usable"] and port["state"] == "active" and port["link_layer"] == "Ethernet", f"port: {port}")
            self.expect(any(gid["address"] == ADDRESS and gid["type"] == "RoCE v2" and gid["interface"] == "veth0"
                            for gid in port["gids"]), f"no {ADDRESS} by RoCE v2: {port['gids']}")
            self.expect(found[0]["mlx5"] is None and found[0]["limits"]["queue_pairs"] > 0, f"device: {found[0]}")
            table = kelpd.kelpctl("devices").stdout.decode()
            self.expect("rxe0" in table and "yes" in table and "not mlx5" in table and ADDRESS in table, table)
            self.expect(self._doctor(kelpd) == ("ok", "usable: rxe0 port 1"), f"the doctor, of a usable port: {self._doctor(kelpd)}")
            figures = kelpd.control_text("/metrics")
            self.expect('\nkelp_rdma_port_counter_total{device="rxe0",port="1",counter="rcvd_rnr_err"} ' in figures, figures[-2000:])
            subprocess.run(["ip", "link", "set", "veth1", "down"], check=True)
            process.wait_until("the port to be down", lambda: self._devices(kelpd)[0]["ports"][0]["state"] != "active",
                               [kelpd.child])
            port = self._devices(kelpd)[0]["ports"][0]
            self.expect(not port["usable"] and port["obstacle"] == f"the port is {port['state']}", f"without a link: {port}")
            level, detail = self._doctor(kelpd)
            self.expect(level == "warn" and f"the port is {port['state']}" in detail, f"the doctor, without a link: {detail}")
            subprocess.run(["ip", "link", "set", "veth1", "up"], check=True)

    def hidden_devices(self) -> None:
        hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/infiniband && exec "$@"', "sh"]
        with daemon.Daemon(self.programs, self.home, self.home / "volumes", prefix=hide) as kelpd:
            found = self._devices(kelpd)
            self.expect(len(found) == 1 and found[0]["name"] == "rxe0" and "PrivateDevices=" in found[0]["error"],
                        f"with /dev/infiniband out of sight: {found}")

    @staticmethod
    def _devices(kelpd: daemon.Daemon) -> list[dict[str, Any]]:
        return json.loads(kelpd.kelpctl("--json", "devices").stdout)["devices"]

    @staticmethod
    def _doctor(kelpd: daemon.Daemon) -> tuple[str, str]:
        findings = json.loads(kelpd.kelpctl("--json", "doctor").stdout)["findings"]
        return next((one["level"], one["found"]) for one in findings if one["check"] == "RDMA")


def verbs(args: argparse.Namespace, home: Path, say: process.Progress) -> tuple[list[str], dict[str, Any]]:
    import verbs_scenes
    broken: list[str] = []
    wanted = args.scene or VERBS
    if "rows" in wanted:
        for number, name in enumerate(("v4b", "v5b")):
            say(f"rows of {name}")
            rows_home = home / f"rows{number}"
            rows_home.mkdir()
            broken += verbs_scenes.rows(args.programs, args.weed, rows_home, ROOT / "tests" / "fixtures" / name, [])
    with weed.Cluster(args.weed, home) as cluster:
        cluster.grow(1)
        scenes = verbs_scenes.VerbsScenes(args.programs, home, cluster, late=1000 if args.full else 250,
                                          requests=100_000 if args.full else 10_000, reconnects=200 if args.full else 40)
        for name in wanted:
            if name == "rows":
                continue
            say(name)
            try:
                getattr(scenes, name)()
            except process.LabError as error:
                scenes.broken.append(f"{name}: {error}")
    return broken + scenes.broken, scenes.figures


VERBS = ("rows", "options", "killed", "programs_die", "forsaken", "cancelled", "arena", "late", "strangers", "growth", "as_somebody_else")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and the test programs")
    parser.add_argument("--weed", type=Path, required=True, help="the program")
    parser.add_argument("--full", action="store_true", help="100,000 requests, 1,000 late answers, 200 connections")
    parser.add_argument("--scene", choices=VERBS, action="append", help="only this one of the verbs scenes; repeatable")
    args = parser.parse_args()
    process.exit_on_signals()
    say = process.Progress()
    broken: list[str] = []
    figures: dict[str, Any] = {}
    with process.scratch_dir("kelp-guest-") as home:
        try:
            if not args.scene:
                scenes = Scenes(args.programs, home)
                for scene in (scenes.devices, scenes.hidden_devices):
                    say(scene.__name__)
                    scene()
                broken += scenes.broken
            more, figures = verbs(args, home, say)
            broken += more
        except process.LabError as error:
            broken.append(str(error))
    say("done")
    print(json.dumps(figures, indent=1))
    for one in broken:
        print(f"BROKEN: {one}")
    print("broken" if broken else "all promises held")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
