"""A configuration that is read again while kelpd runs."""

from __future__ import annotations

import os
import signal

from control_socket import ask, setting
from scene import Scene, expect, health, is_alive, promise, wait_for


@promise("reload")
def what_may_change_changes_and_the_rest_is_named(scene: Scene) -> None:
    with scene.kelpd(scene.volumes(), settings={"worker.spin_us": 10}) as kelpd:
        scene.config_file({"worker.spin_us": 20, "worker.ops": 128, "client.max_clients": 1})
        status, answer = ask(kelpd, "POST", "/reload")
        expect(status == 200, f"HTTP {status}: {answer}")
        applied = {item["key"]: (item["from"], item["to"]) for item in answer["applied"]}
        expect(applied["worker.spin_us"] == (10, 20) and applied["client.max_clients"] == (256, 1), f"applied {applied}")
        restart = {item["key"]: item["to"] for item in answer["needs_restart"]}
        expect(restart.get("worker.ops") == 128 and not set(restart) & set(applied), f"needs a restart: {restart}")
        spin, ops = setting(kelpd, "worker.spin_us"), setting(kelpd, "worker.ops")
        expect(spin["value"] == 20 and spin["reloadable"] and spin["origin"].endswith("kelpd.toml:2"), f"/config says {spin}")
        expect(ops["value"] == 4096 and ops["after_restart"] == 128 and not ops["reloadable"], f"/config says {ops}")
        expect(not any("reload" in reason for reason in health(kelpd)["reasons"]), "/health is not content")


@promise("reload")
def a_limit_that_was_lowered_holds_for_those_who_come(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        scene.config_file({"client.max_data_bytes": 65536})
        expect(ask(kelpd, "POST", "/reload")[0] == 200, "the reload is refused")
        done = kelpd.kelpctl("read", "1,0123456789")
        expect(b"bytes of data area" in done.stderr, f"a larger client is let in: {done.stderr!r}")


@promise("reload")
def a_file_that_is_not_sound_changes_nothing_and_is_said_until_a_reload_goes_well(scene: Scene) -> None:
    with scene.kelpd(scene.volumes(), settings={"worker.spin_us": 10}) as kelpd:
        for text, word in (("[worker]\nspin_us = 900000\n", "out of range"), ("[worker]\nspin_u = 1\n", "did you mean worker.spin_us"), ("][", "kelpd.toml:1")):
            (scene.home / "kelpd.toml").write_text(text)
            status, answer = ask(kelpd, "POST", "/reload")
            expect(status == 422 and word in answer["error"], f"HTTP {status}: {answer}")
            expect(setting(kelpd, "worker.spin_us")["value"] == 10, "the value changed")
            sick = health(kelpd)
            expect(sick["status"] == "degraded" and any(answer["error"] in reason for reason in sick["reasons"]), f"/health: {sick}")
            expect("old settings stay" in kelpd.log.read_text(), "the log does not say so")
        (scene.home / "kelpd.toml").unlink()
        expect(ask(kelpd, "POST", "/reload")[0] == 422, "a file that is gone passes for the defaults")
        scene.config_file({"worker.spin_us": 30})
        expect(ask(kelpd, "POST", "/reload")[0] == 200, "the mended file is refused")
        wait_for("no reasons", lambda: health(kelpd)["reasons"] == [], kelpd)
        expect(setting(kelpd, "worker.spin_us")["value"] == 30, "still degraded")


@promise("reload")
def sighup_reloads(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        scene.config_file({"daemon.log_level": "error", "worker.spin_us": 7})
        os.kill(kelpd.child.pid, signal.SIGHUP)
        wait_for("the new value", lambda: setting(kelpd, "worker.spin_us")["value"] == 7, kelpd)
        is_alive(kelpd)


@promise("reload")
def directories_and_flags_are_not_what_a_reload_changes(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        status, answer = ask(kelpd, "POST", "/reload")
        expect(status == 200 and answer == {"applied": [], "needs_restart": []}, f"HTTP {status}: {answer}")
        expect(setting(kelpd, "target.directory[0].path")["origin"] == "--volume-dir", "the flag is forgotten")


@promise("reload")
def only_post_reloads(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        for path in ("/reload", "/drain", "/disable", "/enable"):
            status, answer = ask(kelpd, "GET", path)
            expect(status == 405 and "POST" in answer["error"], f"GET {path}: HTTP {status}, {answer}")
        wait_for("nothing but that volumes are being read", lambda: health(kelpd)["reasons"] == [], kelpd)
