#!/usr/bin/env python3
"""The Debian packages as an operator meets them, in a container where systemd runs and nothing was of Kelp before.

Installs packages that scripts/package.sh has made beside a weed, configures a gateway and a target by the samples, reads
needles of the fixtures by kelpctl and by a program that is compiled there with libkelp-dev, reloads, stops, upgrades, removes and
purges. What the host has then is what it had before: files, users, groups, units, mounts, kernel settings, processes.
Exit code: 0 all promises held, 1 one was broken or something failed, 77 there can be no such container here, or weed cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "live"), str(Path(__file__).resolve().parent)]
import verdict  # noqa: E402
from kelplab import process, weed  # noqa: E402

import container  # noqa: E402  (needs the path that verdict adds)
from container import Container  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "v5b"
PACKAGES = ("kelp", "libkelp0", "libkelp-dev")
UNITS = ("kelp-target", "kelp-gateway")
KEY = "00112233445566778899aabbccddeeff"
MOST_EXPOSURE = 2.0
# What changes while any package is installed, or by itself.
OTHERS = ("/data", "/stage", "/proc", "/sys", "/dev/pts", "/dev/char", "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log",
          "/run/log", "/run/systemd", "/run/udev", "/tmp/systemd-private-*", "/var/tmp/systemd-private-*")
# Counters and numbers among the settings of the kernel.
NO_SETTINGS = (r"state|random|file-nr|inode-nr|dquot|ns_last_pid|count|cputime|pty\.nr|epoll|hostname|domain|"
               r"perf_event_max_sample_rate|aio-nr")


def snapshot(host: Container) -> dict[str, list[str]]:
    """What a host has, by kind."""
    def lines(*words: str) -> list[str]:
        return sorted(host.text(*words).splitlines())

    skipped = " -o ".join(f"-path '{path}'" for path in OTHERS)
    return {
        "files": lines("sh", "-c", rf"find / \( {skipped} \) -prune -o -printf '%M %u:%g %p %l\n'"),
        "contents of /etc": lines("sh", "-c", "find /etc -type f ! -name '*-' ! -name ld.so.cache -exec sha256sum {} +"),
        "users": lines("getent", "passwd"),
        "groups": lines("getent", "group"),
        "units": lines("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain"),
        "failed units": lines("systemctl", "list-units", "--failed", "--no-legend", "--no-pager", "--plain"),
        "mounts": lines("findmnt", "--noheadings", "--list", "--output", "TARGET,FSTYPE,OPTIONS"),
        "settings": [line for line in lines("sh", "-c", "sysctl -a 2>/dev/null") if not re.search(NO_SETTINGS, line.split("=")[0])],
        "processes": [line for line in lines("ps", "-e", "-o", "user=,comm=") if line.split()[-1] not in ("ps", "(sd-pam)")],
    }


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    return [f"{kind}: {line}" for kind in before
            for line in difflib.unified_diff(before[kind], after[kind], "before", "after", n=0, lineterm="") if line[0] in "+-"
            and not line.startswith(("+++", "---"))]


def at_rest(host: Container) -> dict[str, list[str]]:
    """A snapshot like the one 2 s before, or the last within 30 s: what starts with a host comes to an end."""
    give_up = time.monotonic() + 30
    last, now = None, snapshot(host)
    while now != last and time.monotonic() < give_up:
        time.sleep(2)
        last, now = now, snapshot(host)
    return now


def in_the_end(before: dict[str, list[str]], host: Container) -> list[str]:
    """Differences that stay: what apt and systemd have started is over within 10 s."""
    give_up = time.monotonic() + 10
    while found := differences(before, snapshot(host)):
        if time.monotonic() > give_up:
            break
        time.sleep(1)
    return found


def fixture_rows() -> list[dict[str, Any]]:
    """Needles that are plainly there, of all volumes, and one that was compressed."""
    rows = [json.loads(line) for line in (FIXTURES / "manifest.jsonl").read_text().splitlines()]
    whole = [row for row in rows if row["set"] == "vs" and row["status"] == 200 and not row.get("also_ok") and row.get("size")
             and not row.get("chunk_manifest") and not row.get("expires_at_ns")]
    plain = [row for row in whole if not row["content_encoding_gzip"]]
    return plain[::max(1, len(plain) // 8)] + [row for row in whole if row["content_encoding_gzip"]][:1]


def found_in(folder: Path) -> list[Path]:
    try:
        return [next(folder.glob(f"{name}_*.deb")) for name in PACKAGES]
    except StopIteration:
        raise container.Unavailable(f"not all of {', '.join(PACKAGES)} are in {folder}: scripts/package.sh builds them") from None


def dependencies(packages: Sequence[Path]) -> list[str]:
    """What the packages need of Debian, the first of each set of alternatives."""
    names = set()
    for package in packages:
        for item in subprocess.check_output(["dpkg-deb", "-f", package, "Depends"], text=True).split(","):
            names.add(item.split("|")[0].split("(")[0].strip())
    return sorted(names - set(PACKAGES))


def next_version(package: Path, into: Path) -> Path:
    """The same package with a higher version."""
    tree = into / package.stem
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*|Depends: libkelp0 \(= [^)]*)", r"\1+1", control.read_text(), flags=re.MULTILINE))
    made = into / f"{package.stem}+1.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, made], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(tree)
    return made


class Operator:
    """Goes the way of docs/operations.md, and looks at what comes of it."""

    def __init__(self, host: Container, packages: Sequence[Path], newer: Sequence[Path], say: process.Progress,
                 address: str = "127.0.0.1") -> None:
        self.host, self.say, self.address = host, say, address
        self.packages, self.newer = ([f"/stage/{path.name}" for path in paths] for paths in (packages, newer))
        self.rows = fixture_rows()
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {"needles": len(self.rows)}

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def apt(self, *words: str) -> str:
        return self.host.text("apt-get", "--yes", "--quiet=2", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0", *words)

    def state(self, unit: str, name: str = "ActiveState") -> str:
        return self.host.text("systemctl", "show", "--value", f"--property={name}", unit)

    def as_reader(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.host.run("runuser", "-u", "reader", "--", *words, ok=False)

    def weed(self) -> None:
        """A volume server that nobody but its group may read the files of, and its master."""
        self.host.run("useradd", "--system", "seaweedfs")
        self.host.run("useradd", "reader")
        self.host.run("sh", "-c", "mkdir -p /data && cp -r /stage/vs /data/seaweedfs && chown -R seaweedfs: /data/seaweedfs && "
                                  "chmod -R u=rwX,g=rX,o= /data/seaweedfs && mkdir /data/master && chown seaweedfs: /data/master")
        self.host.run("systemd-run", "--quiet", "--unit=weed", "--uid=seaweedfs", "--setenv=HOME=/data/master", "/stage/weed", "server",
                      f"-ip={self.address}", "-dir=/data/seaweedfs", "-master.dir=/data/master", "-master.telemetry=false")
        lookup = rf"exec 3<>/dev/tcp/{self.address}/9333 && printf 'GET /dir/lookup?volumeId=1 HTTP/1.0\r\n\r\n' >&3 && cat <&3"
        self.host.wait("weed", "bash", "-c", lookup, answer=f'"url":"{self.address}:8080"')

    def install(self) -> None:
        told = self.apt("install", "--no-install-recommends", *self.packages)
        self.expect("/usr/share/kelp to /etc/kelp" in told, f"the installation does not say what to do next: {told[-400:]}")
        for unit in UNITS:
            self.expect(self.state(unit) == "inactive", f"{unit} is {self.state(unit)} after the installation")
            self.expect(self.state(unit, "UnitFileState") == "disabled", f"{unit} is enabled by the installation")
            told = self.host.text("systemd-analyze", "security", "--no-pager", unit)
            exposure = re.search(rf"exposure level for {unit}.service: ([0-9.]+)", told)
            self.expect(exposure and float(exposure[1]) <= MOST_EXPOSURE, f"systemd finds {unit} exposed: {told[-100:]}")

    def configure(self) -> None:
        """The samples as they are, keys, and a drop-in for the group of the files; a program against libkelp-dev."""
        self.host.run("usermod", "--append", "--groups", "kelp", "reader")
        self.host.run("sh", "-ec", f"""
            umask 027
            cp /usr/share/kelp/gateway.toml /usr/share/kelp/target.toml /etc/kelp
            sed -i 's/^# keys_file/keys_file/; s/127.0.0.1/{self.address}/' /etc/kelp/gateway.toml /etc/kelp/target.toml
            echo '1 {KEY}' >/etc/kelp/peers.keys
            chgrp -R kelp /etc/kelp
            mkdir -p /etc/systemd/system/kelp-target.service.d
            printf '[Service]\\nSupplementaryGroups=seaweedfs\\n' >/etc/systemd/system/kelp-target.service.d/files.conf
            systemctl daemon-reload
            echo 'vm.nr_hugepages = 8' >/etc/sysctl.d/60-kelp-hugepages.conf  # as hugepages.sh persist does; for the next boot""")
        self.host.run("sh", "-ec", "cc -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags kelp) /stage/read_needle.c "
                                   "-o /data/read_needle $(pkg-config --libs kelp)")

    def start(self) -> None:
        self.host.run("systemctl", "enable", "--now", *UNITS)
        for unit in UNITS:
            self.expect(self.state(unit) == "active", f"{unit} is {self.state(unit)}")
            self.host.wait(f"what {unit} says of itself", "systemctl", "status", "--no-pager", unit, answer="clients attached")

    def way(self, row: dict[str, Any]) -> str:
        """Of the read: what kelpctl says its bytes came by."""
        done = self.as_reader("kelpctl", "--json", "read", row["fid"])
        return str(json.loads(done.stderr).get("path")) if done.returncode == 0 else ""

    def wait_for_way(self, path: str) -> None:
        process.wait_until(f"reads by way of {path}", lambda: self.way(self.rows[0]) == path, [self.host.child], 60)

    def read(self, path: str, when: str) -> None:
        """Every row by kelpctl and by the program: all bytes, and by what way."""
        self.wait_for_way(path)
        for row in self.rows:
            for words in (["kelpctl", "read", row["fid"]], ["/data/read_needle", row["fid"]]):
                done = self.as_reader(*words)
                same = done.returncode == 0 and hashlib.sha256(done.stdout).hexdigest() == row["sha256"]
                self.expect(same, f"{when}: {' '.join(words)} ({row['kind']}) ends with {done.returncode}, "
                                  f"{len(done.stdout)} bytes of {row['size']}: {done.stderr.decode(errors='replace')[-200:]}")
            # Now and then where a volume is gets asked anew, over HTTP; and a machine that stands still breaks a connection.
            ways = [self.way(row)]
            while ways[-1] != path and len(ways) < 5:
                time.sleep(0.2)
                ways.append(self.way(row))
            self.expect(path in ways, f"{when}: {row['fid']} came by {' and by '.join(ways)}, not {path}")

    def reload(self) -> None:
        self.host.run("sh", "-c", "printf '[daemon]\\nlog_level = \"debug\"\\n' >>/etc/kelp/gateway.toml")
        before = self.state("kelp-gateway", "MainPID")
        self.host.run("systemctl", "reload", "kelp-gateway")
        self.host.wait("the reload", "sh", "-c", "kelpctl config | grep log_level", answer="debug", deadline_s=10)
        self.expect(self.state("kelp-gateway", "MainPID") == before, "a reload is a restart")

    def stop_target(self) -> None:
        """Reads go on over HTTP, and come back."""
        self.host.run("systemctl", "stop", "kelp-target")
        self.expect(self.state("kelp-target", "Result") == "success", f"the target's end: {self.state('kelp-target', 'Result')}")
        self.expect(self.host.run("test", "-e", "/run/kelp-target", ok=False).returncode != 0, "/run/kelp-target is left")
        self.read("http", "without a target")

    def upgrade(self) -> None:
        """With the gateway running and the target stopped."""
        configuration = self.host.text("sh", "-c", "sha256sum /etc/kelp/*")
        before = self.state("kelp-gateway", "MainPID")
        self.apt("install", "--no-install-recommends", *self.newer)
        version = self.host.text("dpkg-query", "--show", "--showformat=${Version}", "kelp")
        self.expect(version.endswith("+1"), f"the version after the upgrade is {version}")
        self.expect(self.state("kelp-gateway") == "active", f"the gateway is {self.state('kelp-gateway')} after the upgrade")
        self.expect(self.state("kelp-gateway", "MainPID") != before, "the upgrade does not restart the gateway")
        self.expect(self.state("kelp-target") == "inactive", "the upgrade starts a target that was stopped")
        self.expect(self.host.text("sh", "-c", "sha256sum /etc/kelp/*") == configuration, "the upgrade touches the configuration")
        self.host.run("systemctl", "start", "kelp-target")

    def remove(self) -> None:
        self.apt("remove", "kelp")
        for unit in UNITS:
            self.expect(self.state(unit) == "inactive", f"{unit} is {self.state(unit)} after the removal")
        self.expect(self.host.text("pgrep", "-c", "kelpd", ok=False) == "0", "a kelpd runs after the removal")
        self.expect(self.host.run("test", "-s", "/etc/kelp/gateway.toml", ok=False).returncode == 0, "the removal takes the configuration")
        self.apt("purge", *PACKAGES)
        self.host.run("rm", "/data/read_needle")

    @contextlib.contextmanager
    def told_of_failures(self) -> Iterator[None]:
        """Adds what the units have to say, while they are there to ask."""
        try:
            yield
        except process.LabError as error:
            asked = ("kelpctl peers", "kelpctl devices", "kelpctl --run-dir /run/kelp-target devices",
                     "journalctl --no-pager -u kelp-gateway -u kelp-target -u weed | grep -vE 'client (attached|left)' | tail -n 40")
            said = [f"{one}:\n{self.host.text('sh', '-c', f'{one} 2>&1', ok=False)}" for one in asked]
            raise process.LabError("\n".join([str(error), *said])) from None

    def step(self, name: str, work: Any) -> None:
        self.say(name)
        started = time.monotonic()
        work()
        self.figures[f"{name}, s"] = round(time.monotonic() - started, 1)


def prepare(built: Path, binary: Path, home: Path, say: process.Progress) -> tuple[list[Path], list[Path], Path]:
    """The packages, the same with a higher version, and a root; what a container needs besides lies with them in home/stage."""
    stage = home / "stage"
    stage.mkdir()
    packages = [Path(shutil.copy(package, stage)) for package in found_in(built)]
    newer = [next_version(package, stage) for package in packages]
    root = container.make_root(["gcc", "libc6-dev", "pkg-config", *dependencies(packages)], say)
    shutil.copytree(FIXTURES / "vs", stage / "vs")
    shutil.copy(Path(__file__).parent / "read_needle.c", stage)
    shutil.copy(binary.resolve(), stage / "weed")
    return packages, newer, root


def run(built: Path, binary: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
    packages, newer, root = prepare(built, binary, home, say)
    say("starting the container")
    with container.booted(root, home / "stage", home / "container.log", "--private-network") as host:
        operator = Operator(host, packages, newer, say)
        with operator.told_of_failures():
            lifetime(operator)
    return operator.figures, operator.broken


def lifetime(operator: Operator) -> None:
    operator.step("weed", operator.weed)
    before = at_rest(operator.host)
    operator.step("install", operator.install)
    operator.step("configure", operator.configure)
    operator.step("start", operator.start)
    operator.step("read", functools.partial(operator.read, "tcp", "at first"))
    operator.step("reload", operator.reload)
    operator.step("stop the target", operator.stop_target)
    operator.step("upgrade", operator.upgrade)
    operator.step("read again", functools.partial(operator.read, "tcp", "after the upgrade"))
    operator.step("remove and purge", operator.remove)
    operator.figures["compared"] = {kind: len(lines) for kind, lines in before.items()}
    operator.broken += [f"left behind: {line}" for line in in_the_end(before, operator.host)]


def finish(name: str, about: str | None, test: Callable[[Path, Path, Path, process.Progress], tuple[dict[str, Any], Sequence[str]]]) -> int:
    """What verdict.run() answers, and 77 where there can be no container."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=ROOT / "build" / "packages", help="where they lie")
    built = parser.parse_args().packages.resolve()
    try:
        if missing := container.missing_tools():
            raise container.Unavailable(f"missing: {', '.join(missing)}")
        found_in(built)
        return verdict.run(name, weed.DEFAULT_VERSION, functools.partial(test, built))
    except container.Unavailable as error:
        print(f"skipped: no container with systemd: {error}")
        return verdict.SKIPPED


if __name__ == "__main__":
    sys.exit(finish("packages", __doc__, run))
