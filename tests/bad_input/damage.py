"""Random damage to volume files, while kelpd runs and before it starts: never another byte, never a crash."""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import os
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scene import Broken, Scene, daemon, expect, is_alive, promise, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fixture_rows import run as fixture_rows  # noqa: E402

Row = dict[str, Any]
ROUNDS = 30  # for each of the two ways
SLOWEST_ANSWER_S = 6.0  # the library's own deadline is 5 s
HEADER_BYTES, DATA_LENGTH_BYTES, TAIL_BYTES = 16, 4, 12
COMPRESSED = 1


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def inflated(stored: bytes) -> bytes | None:
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error):
        return None


class Pristine:
    """The files as they were, and all that their records ever held."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self.ever: dict[tuple[int, int, int], set[str]] = collections.defaultdict(set)
        for name in self.files:
            if name.endswith(".dat"):
                self._take_records(int(name.removesuffix(".dat").split("_")[-1]), self.files[name])

    def _take_records(self, volume: int, dat: bytes) -> None:
        at = 8
        while at + HEADER_BYTES <= len(dat):
            cookie, needle, body = struct.unpack_from(">IQi", dat, at)
            data = b""
            if body > 0:
                length = struct.unpack_from(">I", dat, at + HEADER_BYTES)[0]
                start = at + HEADER_BYTES + DATA_LENGTH_BYTES
                data = dat[start:start + length]
                if dat[start + length] & COMPRESSED:
                    data = inflated(data) or data
            self.ever[volume, needle, cookie].add(digest(data))
            record = HEADER_BYTES + max(body, 0) + TAIL_BYTES
            at += record + 8 - record % 8

    def restore(self, folder: Path) -> None:
        """As an operator would: never a half-written file under a name that counts."""
        for name, content in self.files.items():
            path = folder / name
            if not path.exists() or path.read_bytes() != content:
                beside = folder / f"{name}.pristine"
                beside.write_bytes(content)
                beside.rename(path)


class Vandal:
    """Does something random to random files of a folder, and remembers to which."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.folder = folder
        self.touched: set[str] = set()
        self.done: list[str] = []

    def strike(self) -> None:
        ways: list[Callable[[Path], str]] = [self._flip, self._flip, self._truncate, self._zero, self._delete, self._swap]
        for _ in range(self.chance.randint(1, 4)):
            extension = self.chance.choice([".dat", ".idx", ".vif"])
            victims = sorted(path for path in self.folder.glob(f"*{extension}") if path.stat().st_size > 0)
            if victims:
                victim = self.chance.choice(victims)
                self.touched.add(victim.name)
                self.done.append(f"{victim.name} {self.chance.choice(ways)(victim)}")

    def _flip(self, path: Path) -> str:
        bits = [self.chance.randrange(path.stat().st_size * 8) for _ in range(self.chance.randint(1, 16))]
        with path.open("r+b") as file:
            for bit in bits:
                file.seek(bit // 8)
                byte = file.read(1)[0] ^ 1 << bit % 8
                file.seek(bit // 8)
                file.write(bytes([byte]))
        return f"bits flipped: {bits}"

    def _truncate(self, path: Path) -> str:
        length = self.chance.randrange(path.stat().st_size)
        os.truncate(path, length)
        return f"truncated to {length}"

    def _zero(self, path: Path) -> str:
        begin = self.chance.randrange(path.stat().st_size)
        length = self.chance.randint(1, path.stat().st_size - begin)
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(bytes(length))
        return f"zero from {begin}, {length} bytes"

    def _delete(self, path: Path) -> str:
        path.unlink()
        return "deleted"

    def _swap(self, path: Path) -> str:
        other = self.chance.choice(sorted(self.folder.iterdir()))
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)
        self.touched.add(other.name)
        return f"swapped with {other.name}"


class Judge:
    """Tells right answers, errors, and what no reader can tell from right, from wrong bytes."""

    def __init__(self, pristine: Pristine) -> None:
        self.pristine = pristine
        self.counts: collections.Counter[str] = collections.Counter()

    def judge(self, row: Row, answer: fixture_rows.Answer, vandal: Vandal) -> None:
        if answer.status != "ok":
            expect(answer.status != "deadline", f"{row['fid']}: not answered within its deadline")
            self.counts["errors"] += 1
        elif row["status"] == 200 and digest(answer.body) == row["sha256"]:
            self.counts["right"] += 1
        elif self._is_older(row, answer, vandal):
            self.counts["older, its index was cut"] += 1
        elif self._is_mistaken_for_other_coding(row, answer, vandal):
            self.counts["flags changed"] += 1
        else:
            raise Broken(f"{row['kind']} {row['fid']} answers {len(answer.body)} wrong bytes")

    def _is_older(self, row: Row, answer: fixture_rows.Answer, vandal: Vandal) -> bool:
        """An index that lost its last row is the index of a moment ago: what was overwritten or deleted since then is
        there again. Rows carry no checksum and no count, so no reader can know; a stock server serves it too."""
        if not row["fid"].partition(",")[2].isalnum():
            return False
        index = f"{stem(row, self.pristine)}.idx"
        needle = row["fid"].partition(",")[2]
        key = (row["volume"], int(needle[:-8], 16), int(needle[-8:], 16))
        return index in vandal.touched and digest(answer.body) in self.pristine.ever.get(key, ())

    def _is_mistaken_for_other_coding(self, row: Row, answer: fixture_rows.Answer, vandal: Vandal) -> bool:
        """The checksum covers the data and nothing else. One bit of the flags behind it says whether the data is to be
        inflated: a changed one serves gzip as it is stored, or inflates what was stored as a gzip file. Exactly that
        byte, of exactly that needle, must have changed to be forgiven."""
        if not row.get("stored_size"):
            return False
        name = f"{stem(row, self.pristine)}.dat"
        flags_at = row["dat_offset"] + HEADER_BYTES + DATA_LENGTH_BYTES + row["stored_size"]
        whole = self.pristine.files[name]
        stored = whole[flags_at - row["stored_size"]:flags_at]
        now = (vandal.folder / name).read_bytes()
        changed = flags_at < len(now) and (now[flags_at] ^ whole[flags_at]) & COMPRESSED
        return bool(changed) and answer.body in (stored, inflated(stored))


def stem(row: Row, pristine: Pristine) -> str:
    for name in pristine.files:
        base = name.removesuffix(".dat")
        if base != name and int(base.split("_")[-1]) == row["volume"]:
            return base
    return ""


def rows_of(scene: Scene) -> list[Row]:
    manifest = [json.loads(line) for line in (scene.fixtures / "manifest.jsonl").read_text().splitlines()]
    return [row for row in manifest if row["set"] == "vs"]


class Readers:
    """One client per round, which lives through damage and repair."""

    def __init__(self, scene: Scene, kelpd: daemon.Daemon) -> None:
        self.kelpd = kelpd
        self.abi = fixture_rows.Abi(scene.programs / "fixture_rows", kelpd.run_dir)

    def read(self, row: Row) -> fixture_rows.Answer:
        started = time.monotonic()
        try:
            answer = self.abi.read(row["fid"])
        except fixture_rows.process.LabError as error:
            raise Broken(str(error)) from None
        expect(time.monotonic() - started < SLOWEST_ANSWER_S, f"{row['fid']}: {time.monotonic() - started:.1f} s")
        return answer

    def read_until_right(self, rows: list[Row]) -> None:
        left = list(rows)

        def all_right() -> bool:
            left[:] = [row for row in left if not fixture_rows.expected_of(row, fixture_rows.ONE_FOLDER).fits(self.read(row))]
            return not left

        wait_for("every row after the repair", all_right, self.kelpd)


def rounds(scene: Scene, before_start: bool) -> None:
    pristine = Pristine(scene.volumes("pristine"))
    rows = rows_of(scene)
    judge = Judge(pristine)
    chance = random.Random(scene.seed + before_start)
    started = time.monotonic()
    for number in range(ROUNDS):
        folder = scene.volumes(f"vs{number}")
        vandal = Vandal(chance, folder)
        if before_start:
            vandal.strike()
        try:
            with scene.kelpd(folder) as kelpd:
                readers = Readers(scene, kelpd)
                if not before_start:
                    readers.read_until_right(rows)
                    vandal.strike()
                for row in rows:
                    judge.judge(row, readers.read(row), vandal)
                is_alive(kelpd)
                pristine.restore(folder)
                readers.read_until_right(rows)
                expect(readers.abi.close() == 0, "the client did not end well")
        except (Broken, fixture_rows.process.LabError) as error:
            raise Broken(f"round {number} of seed {scene.seed}: {'; '.join(vandal.done)}: {error}") from None
    counts = ", ".join(f"{name} {count}" for name, count in sorted(judge.counts.items()))
    print(f"       {ROUNDS} rounds of seed {scene.seed} in {time.monotonic() - started:.0f} s: {counts}")


@promise("damage")
def damage_while_kelpd_runs_never_reads_as_other_bytes(scene: Scene) -> None:
    rounds(scene, before_start=False)


@promise("damage")
def damage_found_at_the_start_never_reads_as_other_bytes(scene: Scene) -> None:
    rounds(scene, before_start=True)


BITS_PER_NEEDLE = 150


@promise("damage")
def one_flipped_bit_around_the_data_never_reads_as_other_bytes(scene: Scene) -> None:
    """Around, not in: what the checksum does not cover. Few bits, so that each does its work alone."""
    pristine = Pristine(scene.volumes("pristine"))
    rows = [row for row in rows_of(scene) if row.get("dat_offset")]
    judge = Judge(pristine)
    chance = random.Random(scene.seed)
    folder = scene.volumes()
    with scene.kelpd(folder) as kelpd:
        readers = Readers(scene, kelpd)
        readers.read_until_right(rows)
        for row in rows:
            name = f"{stem(row, pristine)}.dat"
            vandal = Vandal(chance, folder)
            with (folder / name).open("r+b", buffering=0) as dat:
                for bit in bits_around_the_data(row, pristine.files[name], chance):
                    byte = pristine.files[name][bit // 8]
                    os.pwrite(dat.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)
                    try:
                        judge.judge(row, readers.read(row), vandal)
                    except Broken as error:
                        raise Broken(f"bit {bit % 8} of byte {bit // 8} of {name}, "
                                     f"{bit // 8 - row['dat_offset']} in its record: {error}") from None
                    os.pwrite(dat.fileno(), bytes([byte]), bit // 8)
            expect(fixture_rows.expected_of(row, fixture_rows.ONE_FOLDER).fits(readers.read(row)), f"{row['fid']} does not read after the repair")
        expect(readers.abi.close() == 0, "the client did not end well")
    print(f"       {', '.join(f'{name} {count}' for name, count in sorted(judge.counts.items()))}")
    expect(judge.counts["flags changed"] > 0, "no flag was flipped: the exception for them is untested")


def bits_around_the_data(row: Row, dat: bytes, chance: random.Random) -> list[int]:
    """All of the flags, and some of what else lies before and behind the data."""
    start = row["dat_offset"]
    body = max(struct.unpack_from(">i", dat, start + 12)[0], 0)
    data = start + HEADER_BYTES + DATA_LENGTH_BYTES
    flags = data + row["stored_size"]
    end = start + HEADER_BYTES + body + TAIL_BYTES
    if body == 0:
        return list(range(start * 8, end * 8))
    others = [*range(start * 8, data * 8), *range((flags + 1) * 8, end * 8)]
    return [*range(flags * 8, flags * 8 + 8), *chance.sample(others, min(BITS_PER_NEEDLE, len(others)))]
