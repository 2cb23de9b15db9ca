#!/usr/bin/env python3
"""deploy/compose.yaml for real, by a Docker engine of our own: SeaweedFS, a kelpd beside its volume server, one for programs,
and a weed mount 4.44 that reads through it.

All of it comes up by one command, each by its health check. Files stored through the filer are read through the mount and by
kelpctl in a container that shares nothing with kelpd but the run directory and a group, and compared; the bytes must have come
from the kelpd beside the volumes. Each kelpd is killed beneath readers: it comes back, and no read is wrong. After `down` nothing
is left.

Exit code: 0 all promises held, 1 one was broken or something failed, 77 there can be no engine here, or weed cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "live"))
import engine  # noqa: E402
import mount  # noqa: E402
import verdict  # noqa: E402
from kelplab import process, weed, weed_server  # noqa: E402
from kelplab.weed import REPOSITORY  # noqa: E402

DEPLOY = REPOSITORY / "deploy"
PROJECT = "kelp"
SERVICES = ("master", "volume", "filer", "kelp-target", "kelp-gateway", "mount")
PORTS = ("SEAWEEDFS_MASTER_PORT", "SEAWEEDFS_MASTER_GRPC_PORT", "SEAWEEDFS_VOLUME_PORT", "SEAWEEDFS_VOLUME_GRPC_PORT",
         "SEAWEEDFS_FILER_PORT", "SEAWEEDFS_FILER_GRPC_PORT", "KELP_SIDECAR_PORT", "KELP_PEER_PORT")
KELP_ID = 990  # uid and gid of kelp in the image
NO_DAEMON = 13  # kelpctl: there is none, or it may not be reached
UP_S, BACK_S, DOWN_S = 120, 30, 90

WEED_IMAGE = f"""FROM {engine.BASE}
RUN apt-get -o Acquire::Retries=3 update -qq \\
 && apt-get -o Acquire::Retries=3 install -qq -y --no-install-recommends curl fuse3
COPY weed /usr/bin/weed
"""
PACKAGES_IMAGE = """FROM scratch
COPY *.deb /packages/
"""


@contextlib.contextmanager
def folder_with(home: Path, dockerfile: str, *files: Path) -> Iterator[Path]:
    """A directory to build an image from."""
    context = home / "context"
    context.mkdir()
    try:
        (context / "Dockerfile").write_text(dockerfile)
        for file in files:
            shutil.copy(file, context)
        yield context
    finally:
        shutil.rmtree(context)


def make_images(docker: engine.Engine, package: Path, home: Path, say: process.Progress) -> None:
    docker.import_base(docker.tools.base_system(say))
    for version in ("4.48", "4.44"):
        say(f"an image of weed {version}")
        with folder_with(home, WEED_IMAGE, weed.install(version, say)) as context:
            docker.build(f"weed:{version}", context / "Dockerfile", context)
    with folder_with(home, PACKAGES_IMAGE, package) as context:
        docker.build("kelp-packages", context / "Dockerfile", context)
    say("the image of kelp")
    docker.build("kelp", DEPLOY / "Dockerfile", REPOSITORY, {"PACKAGES": "kelp-packages"})


class Stack:
    """What compose.yaml describes, on free ports."""

    def __init__(self, docker: engine.Engine, home: Path) -> None:
        self.docker = docker
        self.ports = dict(zip(PORTS, process.free_ports(len(PORTS)), strict=True))
        limits = [line.split() for line in Path("/proc/self/limits").read_text().splitlines()]
        self.environment = docker.environment | {key: str(port) for key, port in self.ports.items()} | {
            "SEAWEEDFS_IMAGE": "weed:4.48", "SEAWEEDFS_MOUNT_IMAGE": "weed:4.44", "COMPOSE_PROJECT_NAME": PROJECT,
            # Not every machine lets its root go beyond these.
            "KELP_NOFILE": next(words[4] for words in limits if words[:3] == ["Max", "open", "files"]),
            "KELP_MEMLOCK": next(words[4] for words in limits if words[:3] == ["Max", "locked", "memory"]).replace("unlimited", "-1")}
        for role in ("target", "gateway"):
            config = home / f"{role}.toml"
            config.write_text((DEPLOY / f"{role}.toml").read_text().replace("18516", str(self.ports["KELP_PEER_PORT"])))
            config.chmod(0o644)
            self.environment[f"KELP_{role.upper()}_CONFIG"] = str(config)

    def compose(self, *words: str, timeout_s: float) -> None:
        # In its directory, as docs/deploy.md has it: docker-compose 1.29 looks for the seccomp profile there.
        self.docker.tools.run("docker-compose", *words, env=self.environment, cwd=DEPLOY, timeout_s=timeout_s)

    def container(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        return self.docker.lines("ps", "--all", "--quiet", "--filter", label)[0]

    def state(self, service: str) -> str:
        found = self.docker.inspect(self.container(service))["State"]
        return found["Health"]["Status"] if found["Status"] == "running" else found["Status"]

    def url(self, port: str, path: str = "") -> str:
        return f"127.0.0.1:{self.ports[port]}{path}"

    def sidecar_reads(self) -> dict[str, int]:
        """By way, of this life of the gateway."""
        status, body = weed_server.http_call("GET", self.url("KELP_SIDECAR_PORT", "/stats"), timeout_s=5)
        if status != 200:
            raise process.LabError(f"the sidecar's /stats is answered with {status}: {body!r}")
        return json.loads(body)["reads"]

    def client(self, *words: str, groups: tuple[int, ...] = (KELP_ID,), check: bool = True) -> tuple[int, bytes]:
        """A program in a container of its own, which has the run directory and nothing else of kelpd. Its words are `sh -c`'s."""
        added = [word for group in groups for word in ("--group-add", str(group))]
        done = self.docker.docker("run", "--rm", "--network=none", "--user=12345:12345", *added, "--cap-drop=ALL", "--read-only",
                                  f"--volume={PROJECT}_run:/run/kelp:ro", "--entrypoint=sh", "kelp", "-c", *words, check=check)
        return done.returncode, done.stdout

    def first_file_id(self, name: str) -> str:
        _, body = weed_server.http_call("GET", self.url("SEAWEEDFS_FILER_PORT", f"/data/{name}?metadata=true"))
        return json.loads(body)["chunks"][0]["file_id"]


class Scene:
    def __init__(self, stack: Stack, say: process.Progress) -> None:
        self.stack, self.docker, self.say = stack, stack.docker, say
        self.figures: dict[str, Any] = {}
        self.broken: list[str] = []
        self.content = {name: body for name, body in mount.files().items() if name.replace(".", "").replace("-", "").isalnum()}

    def expect(self, held: object, promise: str) -> None:
        if not held:
            self.broken.append(promise)

    def up(self) -> None:
        began = time.monotonic()
        self.stack.compose("up", "--detach", "--no-build", timeout_s=UP_S)
        process.wait_until("all services to be healthy", lambda: all(self.stack.state(one) == "healthy" for one in SERVICES), [], 60)
        self.figures["up_s"] = round(time.monotonic() - began, 1)
        for service in ("kelp-target", "kelp-gateway"):
            status = dict(line.split(":\t", 1) for line in
                          Path(f"/proc/{self.docker.pid(self.stack.container(service))}/status").read_text().splitlines() if ":\t" in line)
            self.expect(int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, f"{service} has capabilities")
            self.expect(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", f"{service} has no seccomp filter")
            self.expect(status["Uid"].split() == [str(KELP_ID)] * 4, f"{service} runs as uid {status['Uid']}")

    def store(self) -> None:
        for name, body in self.content.items():
            status, said = weed_server.http_call("PUT", self.stack.url("SEAWEEDFS_FILER_PORT", f"/data/{name}"), body,
                                                 {"Content-Type": "application/octet-stream"})
            if status != 201:
                raise process.LabError(f"the filer does not store {name}: {status} {said!r}")

    def read_by_mount(self) -> Path:
        """Three times: the first read of a volume goes to its server and tells the gateway where that is. Answers the mount,
        seen from outside its container."""
        for name, body in self.content.items():
            got = self.docker.docker("exec", self.stack.container("mount"), "cat", f"/mnt/data/{name}").stdout
            self.expect(got == body, f"{name} reads as other bytes in the mount's container")
        folder = Path(f"/proc/{self.docker.pid(self.stack.container('mount'))}/root/mnt/data")
        for name, body in self.content.items():  # not counted: by this one each volume has been asked for, past the cache, too
            self.expect(mount.read_past_cache(folder / name) == body, f"{name} reads as other bytes")
        first = self.stack.sidecar_reads()
        self.figures["reads of the mount, first pass"] = first
        for _ in range(3):  # once a minute where a volume is gets asked anew, over HTTP
            before = self.stack.sidecar_reads()
            for name, body in self.content.items():
                self.expect(mount.read_past_cache(folder / name) == body, f"{name} reads as other bytes")
            after = self.stack.sidecar_reads()
            grown = {way: after[way] - before[way] for way in after}
            if grown["http"] == 0:
                break
        self.figures["last pass"] = grown
        self.expect(grown["tcp"] + grown["cache"] >= len(self.content), "the mount does not read through the kelpd beside the volumes")
        self.expect(grown["http"] == 0 and grown["local"] == 0, "reads went another way than to the kelpd beside the volumes")
        return folder

    def read_by_program(self) -> None:
        def namespace(answer: bytes) -> str:
            return answer.decode().strip()

        theirs = namespace(self.docker.docker("exec", self.stack.container("kelp-gateway"), "readlink", "/proc/self/ns/pid").stdout)
        ours = namespace(self.stack.client("readlink /proc/self/ns/pid")[1])
        self.expect(theirs.startswith("pid:[") and ours.startswith("pid:[") and ours != theirs, f"one PID namespace: {ours}, {theirs}")
        for name in ("1048576.bin", "4097.bin"):
            _, got = self.stack.client(f"kelpctl read {self.stack.first_file_id(name)}")
            self.expect(got == self.content[name], f"kelpctl reads {name} as other bytes")
        _, said = self.stack.client(f"kelpctl --json trace {self.stack.first_file_id('4097.bin')}")
        self.expect(b'"tcp"' in said or b'"cache"' in said, f"a program's read does not go to the kelpd beside the volumes: {said!r}")
        log = self.docker.docker("logs", self.stack.container("kelp-gateway")).stderr.decode()
        self.expect("name=kelpctl pid=0 uid=12345" in log, f"kelpd does not see a client of another PID namespace:\n{log[-1500:]}")
        code, _ = self.stack.client("kelpctl health", groups=(), check=False)
        self.expect(code == NO_DAEMON, f"a program without the group may attach: kelpctl ended with {code}")

    def kill(self, service: str, folder: Path) -> None:
        """SIGKILL beneath readers, until the mount reads by way of both kelpds again."""
        name = self.stack.container(service)
        readers = [mount.Reader(folder, self.content, seed) for seed in range(mount.READERS)]
        for reader in readers:
            reader.start()
        time.sleep(2)
        before = sum(reader.reads for reader in readers)
        killed = time.monotonic()
        os.kill(self.docker.pid(name), 9)
        process.wait_until(f"{service} to be started again", lambda: self.docker.inspect(name)["RestartCount"] == 1
                           and self.stack.state(service) == "healthy", [], BACK_S)
        back_s = time.monotonic() - killed
        so_far = self.dataplane_reads()
        process.wait_until("the mount to read through both kelpds again", lambda: self.dataplane_reads() > so_far, [], BACK_S)
        for reader in readers:
            reader.stopped.set()
        for reader in readers:
            reader.join(2 * mount.LONGEST_S)
        found = {"reads before": before, "after": sum(reader.reads for reader in readers) - before,
                 "wrong": sum(reader.wrong for reader in readers), "failed": sum(len(reader.failures) for reader in readers),
                 "hung": sum(reader.is_alive() for reader in readers), "back_s": round(back_s, 1),
                 "slowest_s": round(max(reader.slowest_s for reader in readers), 3)}
        self.figures[f"{service} is killed"] = found
        self.expect(not found["wrong"] and not found["failed"] and not found["hung"], f"around the kill of {service}: {found}, "
                    f"{[reader.failures[:3] for reader in readers]}")
        self.expect(found["slowest_s"] < mount.LONGEST_S, f"a read hung: {found}")
        self.expect(found["reads before"] and found["after"], f"there were no reads: {found}")
        _, got = self.stack.client(f"kelpctl read {self.stack.first_file_id('65537.bin')}")
        self.expect(got == self.content["65537.bin"], f"a program reads other bytes after the kill of {service}")

    def dataplane_reads(self) -> int:
        """Of the sidecar, by way of the kelpd beside the volumes."""
        reads = self.stack.sidecar_reads()
        return reads.get("tcp", 0) + reads.get("cache", 0)

    def down(self) -> None:
        began = time.monotonic()
        self.stack.compose("stop", "--timeout", "30", timeout_s=DOWN_S)
        for service in ("kelp-target", "kelp-gateway"):
            code = self.docker.inspect(self.stack.container(service))["State"]["ExitCode"]
            self.expect(code == 0, f"{service} ended with {code} when it was stopped")
        self.stack.compose("down", "--volumes", timeout_s=DOWN_S)
        self.figures["down_s"] = round(time.monotonic() - began, 1)
        give_up = time.monotonic() + 10  # what has ended is gone a moment later
        while any((left := self.left()).values()) and time.monotonic() < give_up:
            time.sleep(0.2)
        self.expect(not any(left.values()), f"down leaves something behind: {left}")

    def left(self) -> dict[str, list[str]]:
        return {"containers": self.docker.lines("ps", "--all", "--quiet"),
                "volumes": self.docker.lines("volume", "ls", "--quiet"),
                "processes": self.docker.processes(), "mounts": self.docker.mounts()}

    def logs(self) -> str:
        tails = []
        for service in SERVICES:
            done = self.docker.docker("logs", "--tail", "15", self.stack.container(service), check=False)
            tails.append(f"  {service}:\n" + (done.stdout + done.stderr).decode(errors="replace"))
        return "\n".join(tails)


def test(tools: engine.Tools, package: Path, home: Path, say: process.Progress) -> tuple[dict[str, Any], list[str]]:
    with engine.Engine(tools, home) as docker:
        make_images(docker, package, home, say)
        scene = Scene(Stack(docker, home), say)
        try:
            say("up")
            scene.up()
            say("files are stored, and read through the mount")
            scene.store()
            folder = scene.read_by_mount()
            say("a program in a container of its own")
            scene.read_by_program()
            for service in ("kelp-gateway", "kelp-target"):
                say(f"{service} is killed")
                scene.kill(service, folder)
            say("down")
            scene.down()
        except process.LabError as error:
            raise process.LabError(f"{error}\n{scene.logs()}") from error
        return scene.figures, scene.broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=REPOSITORY / "build" / "packages", help="where kelp_*.deb lies")
    package = next(parser.parse_args().packages.resolve().glob("kelp_*.deb"), None)
    random.seed(20261128)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("skipped: a FUSE mount needs /dev/fuse and root")
        return verdict.SKIPPED
    if package is None:
        print("skipped: there is no kelp_*.deb: scripts/package.sh builds it")
        return verdict.SKIPPED
    try:
        tools = engine.Tools(process.Progress())
        return verdict.run("deploy", "4.48", lambda binary, home, say: test(tools, package, home, say))
    except engine.Unavailable as why:
        print(f"skipped: no Docker engine: {why}")
        return verdict.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
