"""Arguments of kelpctl: any garbage for a file id, numbers at the ends of their range, outputs that cannot be written."""

from __future__ import annotations

import random
import subprocess

from scene import Scene, daemon, expect, is_alive, plain_row, promise, reads

GARBAGE = 100
MOST_U64 = 2**64 - 1


def answers(kelpd: daemon.Daemon, code: int, *words: str | bytes) -> None:
    """kelpctl ends with this exit code, with nothing on stdout and a sentence on stderr."""
    done = kelpd.kelpctl(*words, timeout_s=10)
    expect(done.returncode == code, f"kelpctl {words!r:.300}: exit code {done.returncode}, not {code}: {done.stderr!r}")
    expect(not done.stdout, f"kelpctl {words!r:.300} writes {len(done.stdout)} bytes to stdout")
    expect(done.stderr.startswith(b"kelpctl: ") and done.stderr.count(b"\n") == 1,
           f"kelpctl {words!r:.300} says {done.stderr!r:.300}")


def garbage(chance: random.Random) -> bytes:
    length = chance.choice([1, 2, 5, 11, 20, 40, 300])
    if chance.random() < 0.5:
        return bytes(chance.randint(1, 255) for _ in range(length))
    return bytes(chance.choice(b"0123456789abcdefXYZ,,//._-+% ") for _ in range(length)) + b"!"


@promise("arguments")
def a_file_id_of_any_garbage_is_a_usage_error(scene: Scene) -> None:
    chance = random.Random(scene.seed)
    chosen: list[str | bytes] = [
        "", "-", "--", ",", "/", ".", "3", "3,", ",01637037d6", "3,01637037d6,", "3;01637037d6", " 3,01637037d6",
        # Cut anywhere, these two would be other file ids.
        "3,01637037d6_" + "0" * 9_000 + "1", "3,01637037d6_" + "0" * 9_000 + "x",
        "3,01637037d6\n", "+3,01637037d6", "-3,01637037d6", "0x3,01637037d6", "4294967296,01637037d6",
        "18446744073709551616,01637037d6", "3,01637037d6_-1", "3,01637037d6_18446744073709551616",
        "3,0163703Zd6", "3,\u0661\u0662637037d6", "\u0663,01637037d6", "\U0001f41f", b"\xff\xfe\x80", b"3,01637037\xffd6",
        "%33,01637037d6", "3,01637037d6\u200b", "x" * 10_000, "3," + "0" * 10_000, "1" * 10_000 + ",01637037d6",
        "3,01637037d6" + "/" * 10_000 + "x", "../" * 3_000,
    ]
    with scene.kelpd(scene.volumes()) as kelpd:
        for fid in [*chosen, *(garbage(chance) for _ in range(GARBAGE))]:
            answers(kelpd, daemon.BAD_FID, "read", "--", fid)
        answers(kelpd, daemon.BAD_FID, "read")
        answers(kelpd, daemon.BAD_FID, "read", "--")
        answers(kelpd, daemon.BAD_FID, "read", "-")
        answers(kelpd, daemon.BAD_FID, "read", "--no-such-option")
        answers(kelpd, daemon.BAD_FID, "read", "3,01637037d6", "another")
        answers(kelpd, daemon.BAD_FID, "stat", "--", "garbage")
        is_alive(kelpd)
        expect(reads(kelpd, plain_row(scene)), "a needle does not read afterwards")


@promise("arguments")
def numbers_at_the_ends_of_their_range_are_refused_or_answered(scene: Scene) -> None:
    row = plain_row(scene)
    fid, size = row["fid"], row["size"]
    with scene.kelpd(scene.volumes()) as kelpd:
        for text in ("-1", "", " ", "0x10", "1e3", "1.0", "+1", "1 ", "1k", "ten", "18446744073709551616", "9" * 5000):
            answers(kelpd, daemon.BAD_FID, "read", fid, "--offset", text)
            answers(kelpd, daemon.BAD_FID, "read", fid, "--size", text)
            answers(kelpd, daemon.BAD_FID, "read", fid, f"--size={text}")
        answers(kelpd, daemon.BAD_FID, "read", fid, "--size", "0")
        for text in ("0", "-1", "3600001", "18446744073709551615", "x"):
            answers(kelpd, daemon.BAD_FID, "read", fid, "--timeout", text)
        for offset in (size + 1, 2**31, 2**32, 2**63 - 1, 2**63, MOST_U64 - size, MOST_U64 - 1, MOST_U64):
            answers(kelpd, daemon.RANGE, "read", fid, "--offset", str(offset))
            answers(kelpd, daemon.RANGE, "read", fid, "--offset", str(offset), "--size", "1")
            answers(kelpd, daemon.RANGE, "read", fid, "--offset", str(offset), "--size", str(MOST_U64))
        for options, length in (([], size), (["--size", str(MOST_U64)], size), (["--offset", str(size)], 0),
                                (["--offset", str(size - 1), "--size", str(MOST_U64)], 1), (["--offset", "00"], size)):
            code, body = kelpd.read(fid, *options)
            expect(code == daemon.OK and len(body) == length, f"{options}: exit code {code} and {len(body)} bytes")
        is_alive(kelpd)


@promise("arguments")
def an_output_that_cannot_be_written_is_told(scene: Scene) -> None:
    row = plain_row(scene)
    with scene.kelpd(scene.volumes()) as kelpd:
        for words in (["read", row["fid"]], ["stat", row["fid"]], ["health"], ["--json", "volumes"], ["config"]):
            for how, redirection in (("closed", ">&-"), ("full", ">/dev/full")):
                done = subprocess.run(["sh", "-c", f'exec "$0" "$@" {redirection}', kelpd.kelpctl_path, "--run-dir",
                                       kelpd.run_dir, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=10,
                                      check=False)
                expect(done.returncode == daemon.CANNOT_WRITE, f"{words[0]}, stdout {how}: exit code {done.returncode}")
                expect(b"cannot write" in done.stderr, f"{words[0]}, stdout {how}: {done.stderr!r}")
        for file in ("/dev/full", scene.home, scene.home / "no-such-dir" / "file", "/proc/no-such-file"):
            answers(kelpd, daemon.CANNOT_WRITE, "read", row["fid"], "-o", str(file))
        expect(reads(kelpd, row), "a needle does not read afterwards")
