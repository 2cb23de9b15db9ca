"""A kelpd that asks a master, as far as it shows without one."""

from __future__ import annotations

import socket

from control_socket import ask, setting
from scene import Scene, daemon, expect, health, promise


def nobody_there() -> str:
    """host:port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def pure_gateway(scene: Scene, *masters: str) -> daemon.Daemon:
    flags = [word for master in masters for word in ("--master", master)]
    return daemon.Daemon(scene.programs, scene.home, None, flags=flags)


@promise("gateway")
def a_host_without_a_volume_has_a_kelpd_too(scene: Scene) -> None:
    masters = [nobody_there(), nobody_there()]
    with pure_gateway(scene, *masters) as kelpd:
        expect(health(kelpd)["status"] != "failed", f"/health says {health(kelpd)}")
        found = setting(kelpd, "gateway.masters")
        expect(found["value"] == masters and found["origin"] == "--master" and not found["reloadable"], f"/config says {found}")
        status, volumes = ask(kelpd, "GET", "/volumes")
        expect(status == 200 and volumes["volumes"] == [], f"/volumes says {volumes}")
        for command in ("health", "stats", "volumes", "config"):
            done = kelpd.kelpctl(command)
            expect(done.returncode == 0, f"{command}: {done}")


@promise("gateway")
def what_makes_no_sense_stops_the_start_by_name(scene: Scene) -> None:
    run_dir = scene.home / "vain"
    code, words = scene.start_in_vain("--run-dir", run_dir)
    expect(code != 0 and "--master HOST:PORT" in words, f"nothing to serve: {code}, {words}")
    for flag in ("nowhere", "a:0", "a:1,b:2", "http://a:1/x", ""):
        code, words = scene.start_in_vain("--run-dir", run_dir, "--master", flag)
        expect(code != 0 and "--master" in words and "host:port" in words, f"--master {flag}: {code}, {words}")
    for key, value in (("lookup_ttl_ms", 1), ("ca_file", "relative"), ("no_such_key", 1)):
        config = scene.config_file({f"gateway.{key}": value})
        code, words = scene.start_in_vain("--run-dir", run_dir, "--master", "a:1", "--config", config)
        expect(code != 0 and f"kelpd.toml:2: {'unknown key ' if key == 'no_such_key' else ''}gateway.{key}" in words, f"{key}: {code}, {words}")
