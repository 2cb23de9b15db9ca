"""Drain, and the kill switch."""

from __future__ import annotations

import os
import signal

from control_socket import ask
from scene import Scene, daemon, expect, health, killed_at_the_end, plain_row, promise, reads, wait_for
from signals import attached_reader


@promise("switches")
def while_disabled_every_read_is_sent_to_http_and_clients_may_come(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        wait_for("health", lambda: health(kelpd)["status"] == "healthy", kelpd)
        expect(ask(kelpd, "POST", "/disable") == (200, {"status": "disabled"}), "/disable is not answered")
        volume = next(one for one in kelpd.volumes() if one["id"] == row["volume"])
        for words in (["read", row["fid"]], ["stat", row["fid"]], ["read", "4294967295,0123456789"]):
            done = kelpd.kelpctl(*words)
            expect(done.returncode == daemon.USE_HTTP and not done.stdout, f"{words}: exit code {done.returncode}")
        after = next(one for one in kelpd.volumes() if one["id"] == row["volume"])
        expect(after["reads"] == volume["reads"], "the volume was read")
        sick = health(kelpd)
        expect(sick["status"] == "degraded" and "disabled" in sick["reasons"][0], f"/health: {sick}")
        expect(ask(kelpd, "POST", "/enable") == (200, {"status": "enabled"}), "/enable is not answered")
        expect(reads(kelpd, row), "reads do not come back")
        expect(health(kelpd)["status"] == "healthy", "still degraded")


@promise("switches")
def post_drain_ends_kelpd_as_sigterm_does(scene: Scene) -> None:
    with killed_at_the_end(scene.kelpd(scene.volumes())) as kelpd:
        expect(ask(kelpd, "POST", "/drain") == (200, {"status": "draining"}), "/drain is not answered")
        wait_for_end(kelpd)
        expect(kelpd.child.exit_code() == 0, f"exit code {kelpd.child.exit_code()}")
        expect(not (kelpd.run_dir / "control.sock").exists(), "the socket is left behind")


@promise("switches")
def a_drain_that_may_not_wait_still_ends_well_when_nothing_is_in_flight(scene: Scene) -> None:
    with killed_at_the_end(scene.kelpd(scene.volumes(), settings={"daemon.drain_timeout_ms": 0})) as kelpd:
        os.kill(kelpd.child.pid, signal.SIGTERM)
        wait_for_end(kelpd)
        expect(kelpd.child.exit_code() == 0, f"exit code {kelpd.child.exit_code()}: {kelpd.child.log_tail()}")


@promise("switches")
def clients_are_listed_while_they_are_attached(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        expect(ask(kelpd, "GET", "/clients") == (200, {"clients": []}), "somebody is there already")
        with attached_reader(scene, kelpd, row) as reader:
            [client] = ask(kelpd, "GET", "/clients")[1]["clients"]
            expect((client["pid"], client["uid"], client["name"]) == (reader.pid, os.getuid(), "kelpctl"), f"/clients: {client}")
            expect(client["data_bytes"] > 0 and client["channels"] == 1 and not client["leaving"], f"/clients: {client}")
        wait_for("the client to be gone", lambda: ask(kelpd, "GET", "/clients")[1]["clients"] == [], kelpd)


def wait_for_end(kelpd: daemon.Daemon) -> None:
    kelpd.child.process.wait(15)
