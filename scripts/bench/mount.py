#!/usr/bin/env python3
"""Measures what mount.sh says. Run mount.sh."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kelplab import benchmark, daemon, figures, mount_lab, process, weed  # noqa: E402

FILES = 12
RANDOM_READS = 100
# Of a read, by what is read: the kernel asks for 128 KiB at most.
SMALL, READAHEAD = 4096, 131072
WHOLE = "4 MiB files, one after the other"
RANDOM = {f"{size // 1024} KiB at random places": size for size in (SMALL, READAHEAD)}


def seconds_of(what: str, folder: Path, content: dict[str, bytes], seed: int) -> float:
    """For all files, or for RANDOM_READS reads."""
    if what == WHOLE:
        started = time.monotonic()
        wrong = [name for name in content if mount_lab.read_past_cache(folder / name) != content[name]]
        elapsed = time.monotonic() - started
    else:
        chosen, size = random.Random(seed), RANDOM[what]
        places = [(name := chosen.choice(list(content)), chosen.randrange(len(content[name]) // size) * size)
                  for _ in range(RANDOM_READS)]
        with contextlib.ExitStack() as opened:
            fds = {name: opened.enter_context((folder / name).open("rb", buffering=0)).fileno() for name in content}
            for fd in fds.values():
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            started = time.monotonic()
            got = [os.pread(fds[name], size, at) for name, at in places]
            elapsed = time.monotonic() - started
        wrong = [name for (name, at), bytes_read in zip(places, got) if bytes_read != content[name][at:at + size]]
    if wrong:
        raise process.LabError(f"wrong bytes of {wrong}")
    return elapsed


def measure(args: argparse.Namespace, say: process.Progress) -> list[figures.Figure]:
    if mount_lab.obstacle():
        raise weed.Unreachable(mount_lab.obstacle())
    binary = weed.install(mount_lab.VERSION, say)
    pairs = 2 if args.quick else 25
    content = {f"{number}.bin": random.randbytes(mount_lab.CHUNK) for number in range(FILES)}
    with contextlib.ExitStack() as lab:
        home = lab.enter_context(process.scratch_dir("kelp-bench-"))
        memory = Path(lab.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kelp-bench-")))
        cluster = lab.enter_context(weed.Cluster(binary, home / "weed"))
        filer = lab.enter_context(mount_lab.filer(binary, home, cluster))
        mount_lab.store(filer.rpartition(".")[0], "data", content)
        folders = {}
        for way, temp_dir in (("body", ""), ("file", str(memory / "files"))):
            sidecar = f"127.0.0.1:{process.free_ports(1)[0]}"
            (home / way).mkdir()
            (home / way / "kelpd.toml").write_text(f'[sidecar]\ntemp_dir = "{temp_dir}"\ntemp_min_bytes = 4096\n')
            kelpd = lab.enter_context(daemon.Daemon(args.programs, home / way, None, volume_servers={cluster.server: [cluster.volume_dir]},
                                                    flags=["--config", str(home / way / "kelpd.toml"), "--sidecar", sidecar]))
            kelpd.wait_serving(file.vid for file in cluster.volume_files())
            folders[way] = lab.enter_context(mount_lab.mounted(binary, home / f"mount-{way}", filer, sidecar)) / "data"
        measured = []
        for what in (WHOLE, *RANDOM):
            say(f"{what}: {pairs} pairs")
            took: dict[str, list[float]] = {way: [] for way in folders}
            for pair in range(pairs):
                for way, folder in folders.items():
                    took[way].append(seconds_of(what, folder, content, pair))
            for way, name in (("body", "plain bodies"), ("file", "temporary files")):
                if what == WHOLE:
                    speed = [FILES * mount_lab.CHUNK / 1e6 / one for one in took[way]]
                    measured.append(figures.of_samples(f"{what}, by {name}", speed, "high", "MB/s"))
                else:
                    measured.append(figures.of_samples(f"{what}, by {name}: mean", [one / RANDOM_READS * 1e6 for one in took[way]], "low", "us"))
            measured.append(figures.of_samples(f"time by temporary files / by bodies, {what}",
                                               [file / body for file, body in zip(took["file"], took["body"])], "low", "x"))
        return measured


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how fast")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, add_options))
