#!/usr/bin/env python3
"""The second half of quickstart.sh: a SeaweedFS, objects, kelpd, the comparison. Run quickstart.sh."""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
from pathlib import Path

from kelplab import daemon, process, weed

KIB, MIB = 1 << 10, 1 << 20
# label, bytes, objects, compressible text
KINDS = [("1 B", 1, 64, False), ("100 B", 100, 64, False), ("4 KiB", 4 * KIB, 64, False), ("64 KiB", 64 * KIB, 64, False),
         ("64 KiB text", 64 * KIB, 64, True), ("1 MiB", MIB, 16, False), ("8 MiB", 8 * MIB, 4, False)]


def make_body(size: int, text: bool) -> bytes:
    if not text:
        return random.randbytes(size)
    words = [b"kelp", b"holdfast", b"stipe", b"frond", b"blade", b"tide", b"reef"]
    return b" ".join(random.choices(words, k=size // 4))[:size]


def store(cluster: weed.Cluster) -> list[tuple[str, str]]:
    """(label, fid) of every object; each fourth was stored with other bytes before."""
    stored = []
    for label, size, count, text in KINDS:
        for i, fid in enumerate(cluster.assign(count)):
            put = cluster.post_text if text else cluster.put
            if i % 4 == 0:
                put(fid, make_body(size, text))
            put(fid, make_body(size, text))
            stored.append((label, fid))
    return stored


def check_deleted(cluster: weed.Cluster, kelpd: daemon.Daemon) -> None:
    """An object that was deleted a moment ago is gone, with no time to wait."""
    fid = cluster.assign()[0]
    cluster.put(fid, b"soon gone")
    if kelpd.read(fid) != (daemon.OK, b"soon gone"):
        raise process.LabError(f"kelpctl read {fid} did not answer what was stored")
    cluster.delete(fid)
    code, _ = kelpd.read(fid)
    if code != daemon.NOT_FOUND:
        raise process.LabError(f"kelpctl read {fid} ended with {code} after a delete, not with {daemon.NOT_FOUND}")


def next_steps(cluster: weed.Cluster, kelpd: daemon.Daemon, stored: list[tuple[str, str]], home: Path) -> str:
    kelpctl = f"{kelpd.kelpctl_path} --run-dir {kelpd.run_dir}"
    small = next(fid for label, fid in stored if label == "100 B")
    text = next(fid for label, fid in stored if label == "64 KiB text")
    pids = " ".join(str(child.pid) for child in [kelpd.child, *reversed(cluster.children)])
    return f"""
Still running: kelpd and a SeaweedFS (master http://{cluster.master}, volume server http://{cluster.server}). Try:

  {kelpctl} health
  {kelpctl} volumes
  {kelpctl} stat {text}
  {kelpctl} read {text} --offset 100 --size 60
  {kelpctl} read {small} | cmp - <(curl -s http://{cluster.server}/{small}) && echo same bytes
  curl -X DELETE http://{cluster.server}/{small}; {kelpctl} read {small}; echo "exit code $? (3: not found)"
  {kelpctl} stats

Stop it all:

  kill {pids}; rm -r {home}
"""


def run(programs: Path, keep: bool, say: process.Progress) -> None:
    binary = weed.install(weed.DEFAULT_VERSION, say)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(process.scratch_dir("kelp-quickstart-", keep=keep))
        say("starting SeaweedFS: a master and a volume server on 127.0.0.1")
        cluster = stack.enter_context(weed.Cluster(binary, home, keep=keep))
        cluster.grow(4)
        say(f"storing {sum(kind[2] for kind in KINDS)} objects, a quarter of them twice")
        stored = store(cluster)
        say("starting kelpd on the same volume files")
        flags, measured = process.worker_and_client_cpus()
        kelpd = stack.enter_context(daemon.Daemon(programs, home, cluster.volume_dir, flags=flags, keep=keep))
        kelpd.wait_serving(file.vid for file in cluster.volume_files())
        check_deleted(cluster, kelpd)
        say("reading every object through the ring and over HTTP, comparing, then timing both in turns")
        fids = home / "fids"
        fids.write_text("".join(f"{label}\t{fid}\n" for label, fid in stored))
        done = subprocess.run([*measured, programs / "kelp-read-compare", "--server", cluster.server,
                               "--run-dir", kelpd.run_dir, "--fids", fids, "--slice-ms", "100", "--pairs", "9"], check=False)
        if done.returncode != 0:
            raise process.LabError(f"kelp-read-compare ended with exit code {done.returncode}")
        if keep:
            print(next_steps(cluster, kelpd, stored, home))
            return
        say("stopping kelpd and SeaweedFS")
    say("done; nothing is left running")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="directory of kelpd, kelpctl and kelp-read-compare")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    args = parser.parse_args()
    process.exit_on_signals()
    try:
        run(args.programs.resolve(), args.keep, process.Progress())
    except process.LabError as error:
        print(f"quickstart failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
