#!/usr/bin/env python3
"""kelp-bench as a process, against a real kelpd on a copy of the fixtures: what it reads, proves, counts and writes."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import daemon, process  # noqa: E402

OK, USAGE, NO_DAEMON, READS_FAILED, WRONG_BYTES = 0, 2, 13, 20, 21


class Broken(Exception):
    """A promise that was not kept."""


def expect(kept: object, otherwise: str) -> None:
    if not kept:
        raise Broken(otherwise)


class Bench:
    """Runs kelp-bench on the fixtures' plain needles of volume 1."""

    def __init__(self, programs: Path, kelpd: daemon.Daemon, home: Path, rows: list[dict[str, Any]]) -> None:
        # The client polls: on the worker's CPU it would be in the way.
        self.prefix = process.worker_and_client_cpus()[1]
        self.program = programs / "kelp-bench"
        self.kelpd = kelpd
        self.home = home
        self.rows = rows
        self.fids = self.file("fids", "".join(f"{row['fid']}\n" for row in rows))
        self.sums = self.file("sums", "".join(f"{row['sha256']}  {row['fid']}\n" for row in rows))

    def file(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(text)
        return path

    def argv(self, *words: str | Path) -> list[str]:
        return [str(word) for word in (*self.prefix, self.program, "--run-dir", self.kelpd.run_dir, *words)]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              check=False)

    def document(self, *words: str | Path, code: int = OK) -> dict[str, Any]:
        done = self.run("--json", "--warm-up", "0", *words)
        expect(done.returncode == code, f"{words} ended with {done.returncode}, not {code}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)


def whole_reads_are_counted_and_proven(bench: Bench) -> None:
    """--count reads exactly so many, whatever depth, batch, threads and order."""
    for shape in ([], ["--depth", "8", "--batch", "4"], ["--threads", "2", "--depth", "3"], ["--sleep"],
                  ["--order", "sequential"], ["--order", "zipf:0.5", "--depth", "4"]):
        result = bench.document("--fids", bench.fids, "--verify", bench.sums, "--count", "1001", *shape)
        kelp = result["kelp"]
        expect(kelp["reads"] == 1001 and kelp["errors"] == {} and kelp["wrong"] == 0, f"{shape}: {kelp}")
        expect(result["verified"] and kelp["paths"] == {"local": 1001}, f"{shape}: {kelp['paths']}")
        latency = kelp["latency_us"]
        expect(0 < latency["p50"] <= latency["p99"] <= latency["p99.99"] <= latency["max"], f"{shape}: {latency}")


def sequential_reads_add_up(bench: Bench) -> None:
    """Once round the list delivers each object's bytes once, and parts of them as --size and --range say."""
    total = sum(row["size"] for row in bench.rows)
    once = ["--fids", bench.fids, "--verify", bench.sums, "--order", "sequential", "--count", str(len(bench.rows))]
    expect(bench.document(*once)["kelp"]["bytes"] == total, "the bytes of all objects do not add up")
    cut = bench.document(*once, "--size", "100")["kelp"]
    expect(cut["bytes"] == sum(min(row["size"], 100) for row in bench.rows), f"--size 100: {cut}")
    expect(cut["truncated"] == sum(row["size"] > 100 for row in bench.rows), f"--size 100: {cut}")
    ranged = bench.document(*once, "--range", "random:64")["kelp"]
    expect(ranged["bytes"] == sum(min(row["size"], 64) for row in bench.rows), f"--range random:64: {ranged}")


def a_volume_s_listing_is_read(bench: Bench) -> None:
    """--volume reads every needle the daemon lists, and only those."""
    kelp = bench.document("--volume", "1", "--order", "sequential", "--count", "500")["kelp"]
    expect(kelp["reads"] == 500 and kelp["errors"] == {}, f"{kelp}")
    done = bench.run("--volume", "99", "--count", "1")
    expect(done.returncode == 1 and "99" in done.stderr, f"exit code {done.returncode}: {done.stderr}")


def a_corrupted_expectation_is_caught(bench: Bench) -> None:
    row = next(row for row in bench.rows if row["size"] > 0)
    other = ("1" if row["sha256"][0] == "0" else "0") + row["sha256"][1:]
    sums = bench.file("bad-sums", bench.sums.read_text().replace(row["sha256"] + "  " + row["fid"], other + "  " + row["fid"]))
    done = bench.run("--fids", bench.fids, "--verify", sums, "--count", "10")
    expect(done.returncode == WRONG_BYTES and row["fid"] in done.stderr, f"exit code {done.returncode}: {done.stderr}")


def errors_are_named_by_status(bench: Bench) -> None:
    volume, _, key = bench.rows[-1]["fid"].partition(",")
    cookie = f"{int(key[-8:], 16) ^ 1:08x}"
    fids = bench.file("mixed", f"{bench.rows[-1]['fid']}\n{volume},{key[:-8]}{cookie}\n{volume},fffffff112345678\n")
    kelp = bench.document("--fids", fids, "--order", "sequential", "--count", "30", code=READS_FAILED)["kelp"]
    expect(kelp["errors"] == {"not-found": 10, "wrong-cookie": 10} and kelp["reads"] == 10, f"{kelp}")


def a_command_line_that_makes_no_sense_exits_with_2(bench: Bench) -> None:
    fids = ["--fids", str(bench.fids)]
    for words in ([], [*fids, "--volume", "1"], [*fids, "--depth", "0"], [*fids, "--batch", "2"], [*fids, "--order", "up"],
                  [*fids, "--order", "zipf:1"], [*fids, "--size", "0"], [*fids, "--size", "4X"], [*fids, "--range", "5"],
                  [*fids, "--range", "0:4K", "--size", "1"], [*fids, "--duration", "0"], [*fids, "--bogus"],
                  ["--fids", "/nonexistent"], ["--fids", str(bench.file("none", "\n"))],
                  ["--fids", str(bench.file("text", "no file id\n"))],
                  [*fids, "--verify", str(bench.file("empty", ""))], [*fids, "--http-pid", "1"]):
        done = bench.run(*words)
        expect(done.returncode == USAGE and done.stderr.startswith("kelp-bench: ") and not done.stdout,
               f"{words}: exit code {done.returncode}: {done.stderr}")
    done = subprocess.run([bench.program, "--run-dir", bench.home / "nobody", *fids], capture_output=True, timeout=30, check=False)
    expect(done.returncode == NO_DAEMON, f"without a daemon: exit code {done.returncode}")


def decode_counts(text: str) -> int:
    """How many values a compressed V2 histogram holds, read as its specification says."""
    raw = base64.b64decode(text, validate=True)
    cookie, length = struct.unpack(">II", raw[:8])
    expect(cookie == 0x1C849314 and length == len(raw) - 8, f"cookie {cookie:x}, {length} bytes")
    plain = zlib.decompress(raw[8:])
    cookie, length, offset, digits, low, high, ratio = struct.unpack(">IIIIQQd", plain[:40])
    expect((cookie, offset, digits, low, ratio) == (0x1C849313, 0, 2, 1, 1.0), f"{cookie:x} {digits} {low} {high} {ratio}")
    expect(length == len(plain) - 40, f"{length} bytes of counts")
    total, at = 0, 40
    while at < len(plain):
        number = shift = 0
        while True:
            byte, at = plain[at], at + 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        value = (number >> 1) ^ -(number & 1)
        total += max(value, 0)
    return total


def the_hdr_log_holds_every_read(bench: Bench) -> None:
    log = bench.home / "latency.hlog"
    kelp = bench.document("--fids", bench.fids, "--count", "5000", "--hdr-log", log)["kelp"]
    lines = [line for line in log.read_text().splitlines() if line.startswith("Tag=kelp,")]
    expect(lines and sum(decode_counts(line.split(",")[-1]) for line in lines) == kelp["reads"] == 5000, f"{log.read_text()}")


def clients(kelpd: daemon.Daemon) -> int:
    return json.loads(kelpd.kelpctl("--json", "health").stdout)["clients"]


def an_interrupted_run_tells_what_it_has(bench: Bench) -> None:
    process.wait_until("those before to be gone", lambda: clients(bench.kelpd) == 0, [bench.kelpd.child])
    running = subprocess.Popen(bench.argv("--json", "--fids", bench.fids, "--duration", "60", "--warm-up", "0"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # Attached, and so measuring: what is sent before would end it without results.
        process.wait_until("kelp-bench to attach", lambda: clients(bench.kelpd) > 0, [])
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait()
    expect(running.returncode == OK, f"exit code {running.returncode}: {err}")
    result = json.loads(out)
    expect(result["interrupted"] and result["kelp"]["seconds"] < 30, f"{result}")


def a_table_is_for_people(bench: Bench) -> None:
    done = bench.run("--fids", bench.fids, "--verify", bench.sums, "--count", "100")
    expect(done.returncode == OK and "every byte as expected" in done.stdout and "p99.99" in done.stdout, done.stdout)
    expect("\x1b" not in done.stdout, "colours where there is no terminal")


PROMISES: list[Callable[[Bench], None]] = [
    whole_reads_are_counted_and_proven, sequential_reads_add_up, a_volume_s_listing_is_read, a_corrupted_expectation_is_caught, errors_are_named_by_status,
    a_command_line_that_makes_no_sense_exits_with_2, the_hdr_log_holds_every_read, an_interrupted_run_tells_what_it_has,
    a_table_is_for_people]


def plain_rows(fixtures: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (fixtures / "manifest.jsonl").read_text().splitlines()]
    return [row for row in rows if row["set"] == "vs" and row["kind"] == "plain" and row["status"] == 200
            and row["volume"] == 1 and "expires_at_ns" not in row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and kelp-bench")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with manifest.jsonl")
    args = parser.parse_args()
    process.exit_on_signals()
    broken = 0
    with process.scratch_dir("kelp-bench-") as home:
        shutil.copytree(args.fixtures / "vs", home / "vs")
        with daemon.Daemon(args.programs, home, home / "vs", flags=process.worker_and_client_cpus()[0]) as kelpd:
            kelpd.wait_serving([1])
            bench = Bench(args.programs, kelpd, home, plain_rows(args.fixtures))
            for promise in PROMISES:
                try:
                    promise(bench)
                    print(f"ok      {promise.__name__}")
                except Broken as error:
                    broken += 1
                    print(f"BROKEN  {promise.__name__}: {error}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
