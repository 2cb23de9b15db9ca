"""kelpctl's commands for operators, against a real kelpd."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time

from control_socket import ask, setting
from scene import Scene, daemon, expect, health, plain_row, promise, reads, wait_for


@promise("tool")
def the_doctor_finds_a_sound_daemon_sound_and_names_what_is_not(scene: Scene) -> None:
    with scene.kelpd(scene.volumes(), settings={"client.hugepages": "off"}) as kelpd:
        wait_for("the volumes", lambda: health(kelpd)["status"] == "healthy", kelpd)
        done = kelpd.kelpctl("--json", "doctor")
        found = {finding["check"]: finding["level"] for finding in json.loads(done.stdout)["findings"]}
        expect(done.returncode == 0 and "fail" not in found.values(), f"exit code {done.returncode}: {done.stdout!r}")
        expect({"hugepages", "memlock", "io_uring", "CPUs", "run directory", "daemon", "version", "attach"} <= set(found), f"{found}")
        expect(any(check.startswith("directory /") for check in found), f"no directory in {found}")
        kelpd.kelpctl("disable")
        done = kelpd.kelpctl("doctor")
        expect(done.returncode == 0 and b"warn" in done.stdout and b"disabled" in done.stdout, f"disabled: {done.stdout!r}")
        done = kelpd.kelpctl("doctor", "--volume-dir", "/no/such/directory")
        expect(done.returncode == 1 and b"/no/such/directory" in done.stdout, f"a missing directory: {done.stdout!r}")


@promise("tool")
def the_switches_of_kelpctl_are_those_of_the_daemon(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        expect(kelpd.kelpctl("disable").stdout == b"disabled\n", "disable says something else")
        expect(kelpd.read(row["fid"])[0] == daemon.USE_HTTP, "reads are served")
        expect(kelpd.kelpctl("enable").stdout == b"enabled\n" and reads(kelpd, row), "reads are not served")
        scene.config_file({"worker.spin_us": 3})
        done = kelpd.kelpctl("reload")
        expect(done.returncode == 0 and b"applied" in done.stdout and setting(kelpd, "worker.spin_us")["value"] == 3, f"reload: {done}")
        wait_for("no clients", lambda: kelpd.kelpctl("clients").stdout == b"no clients\n", kelpd)
        expect(kelpd.kelpctl("drain").stdout == b"draining\n", "drain says something else")
        expect(kelpd.child.process.wait(15) == 0, "kelpd does not end")


@promise("tool")
def a_trace_tells_the_ways_to_a_needle_and_which_one_served_it(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        done = kelpd.kelpctl("--json", "trace", row["fid"])
        found = json.loads(done.stdout)
        expect(done.returncode == 0 and found["read"]["path"] == "local" and found["read"]["bytes"] == row["size"], f"read: {found}")
        local = next(path for path in found["trace"]["paths"] if path["path"] == "local")
        expect(local["usable"] and found["trace"]["local"]["state"] == "serving", f"not usable: {found['trace']}")
        expect(all(found["stages_us"][stage] > 0 for stage in ("attach", "resolve", "read")), f"stages: {found['stages_us']}")
        for word in (b"served by         local", b"submit to answer"):
            expect(word in kelpd.kelpctl("trace", row["fid"]).stdout, f"no {word!r} for people")
        done = kelpd.kelpctl("trace", "77777,01637037d6")
        expect(done.returncode == daemon.UNAVAILABLE and b"not on this host" in done.stdout, f"a volume that is not here: {done}")
        kelpd.kelpctl("disable")
        done = kelpd.kelpctl("trace", row["fid"])
        expect(done.returncode == daemon.USE_HTTP and b"disabled by an operator" in done.stdout, f"disabled: {done}")


@promise("tool")
def a_trace_of_nonsense_is_refused(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        for target in ("/trace", "/trace?fid=", "/trace?fid=3", "/trace?fid=3,1", "/trace?fid=4294967296,01637037d6", "/trace?fdi=3,01637037d6",
                       "/trace?fid=3,01637037d6&volume=3", "/trace?fid=3,01637037d6%00", "/trace?fid=%ff,01637037d6"):
            status, answer = ask(kelpd, "GET", target)
            expect(status == 400 and "fid=FID" in answer["error"], f"{target}: HTTP {status} {answer}")
        expect(ask(kelpd, "POST", "/trace?fid=3,01637037d6")[0] == 405, "a trace is posted")
        expect(ask(kelpd, "GET", "/trace?fid=3,01637037d6")[0] == 200, "a trace is refused")


def ended_by_sigint(watching: subprocess.Popen[bytes]) -> None:
    watching.send_signal(signal.SIGINT)
    expect(watching.wait(10) == 0, f"exit code {watching.returncode}")


@promise("tool")
def stats_are_watched_line_by_line_until_sigint(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        for flags, word in (([], b"reads/s"), (["--json"], b'"reads_per_s"')):
            watching = subprocess.Popen([kelpd.kelpctl_path, "--run-dir", kelpd.run_dir, *flags, "stats", "--watch"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert watching.stdout
            line = watching.stdout.readline()
            expect(word in line and b"\x1b" not in line, f"the first line is {line!r}")
            ended_by_sigint(watching)
            watching.stdout.close()


@promise("tool")
def stats_are_drawn_anew_on_a_terminal(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        ours, theirs = pty.openpty()
        watching = subprocess.Popen([kelpd.kelpctl_path, "--run-dir", kelpd.run_dir, "stats", "--watch", "1"],
                                    stdin=subprocess.DEVNULL, stdout=theirs, env={**os.environ, "TERM": "xterm"})
        os.close(theirs)
        shown, give_up = b"", time.monotonic() + 20
        while shown.count(b"READS/s") < 2 and time.monotonic() < give_up:
            shown += os.read(ours, 4096)
        expect(shown.count(b"\x1b[H") >= 2 and shown.startswith(b"\x1b[H"), f"the screen has {shown!r}")
        ended_by_sigint(watching)
        os.close(ours)


@promise("tool")
def watching_ends_with_the_daemon(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        watching = subprocess.Popen([kelpd.kelpctl_path, "--run-dir", kelpd.run_dir, "stats", "--watch", "1"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert watching.stdout and watching.stderr
        watching.stdout.readline()
        kelpd.child.stop()
        expect(watching.wait(10) == daemon.NO_DAEMON, f"exit code {watching.returncode}")
        watching.stdout.close()
        watching.stderr.close()
