"""A weed, a kelpd that has its files and listens for RDMA, and kelpds that ask it: all in the guest, at the address of rxe0."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "live")]
import gateway_lab as lab  # noqa: E402
from gateway_lab import Object  # noqa: E402
from kelplab import daemon, process, weed  # noqa: E402
from peer_faults import LateReader, is_right  # noqa: E402

ADDRESS = "10.9.0.1"
RDMA_PORT = 18515
SIZES = (1, 700, 4096, 4096, 20_000, 70_000, 300_000, 1_500_000)
KEYS = {1: "00112233445566778899aabbccddeeff", 2: "ffeeddccbbaa99887766554433221100"}
# Everything takes ten to a hundred times as long as on the machine outside.
PATIENCE_S = 60


class VerbsLab:
    def __init__(self, programs: Path, home: Path, cluster: weed.Cluster) -> None:
        self.programs, self.home, self.cluster = programs, home, cluster
        self.address = f"{ADDRESS}:{process.free_ports(1)[0]}"
        self.broken: list[str] = []
        self.figures: dict[str, Any] = {}
        self.reader = lab.Reader(programs, home)
        self.objects = [Object(fid, random.randbytes(size))
                        for fid, size in zip(cluster.assign(len(SIZES)), SIZES, strict=True)]
        for one in self.objects:
            cluster.put(one.fid, one.body)

    def expect(self, kept: object, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def keys(self, name: str, *ids: int) -> Path:
        path = self.home / name
        path.write_text("".join(f"{number} {KEYS[number]}\n" for number in ids))
        path.chmod(0o600)
        return path

    def config(self, name: str, *, peer: dict[str, Any], rdma: dict[str, Any], **more: dict[str, Any]) -> list[str]:
        path = self.home / f"{name}.toml"
        sections = {"peer": peer, "rdma": rdma, **more}
        path.write_text("".join(f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in items.items())
                                for section, items in sections.items()))
        return ["--config", str(path)]

    def target(self, *, flags: Sequence[str] = (), user: str = "", **rdma: Any) -> daemon.Daemon:
        config = self.config("target", peer={"listen": [self.address], "keys_file": str(self.keys("target.keys", 1))},
                             rdma={"listen": [f"{ADDRESS}:{RDMA_PORT}"], **rdma}, daemon={"user": user})
        return daemon.Daemon(self.programs, self.home / "target", None,
                             volume_servers={self.cluster.server: [self.cluster.volume_dir]}, flags=[*config, *flags])

    def gateway(self, name: str = "gateway", *, flags: Sequence[str] = (), user: str = "", **rdma: Any) -> daemon.Daemon:
        config = self.config(name, peer={"kelpds": [f"127.0.0.1={self.address}"],
                                         "keys_file": str(self.keys("gateway.keys", 1))}, rdma=rdma, daemon={"user": user})
        return daemon.Daemon(self.programs, self.home / name, None, flags=["--master", self.cluster.master, *config, *flags])

    def serving(self, target: daemon.Daemon) -> None:
        target.wait_serving((file.vid for file in self.cluster.volume_files()), PATIENCE_S)

    def late_reader(self, kelpd: daemon.Daemon, buffers: int) -> LateReader:
        return LateReader(self.programs, kelpd, self.reader.listing(self.objects), buffers)

    def wait_path(self, kelpd: daemon.Daemon, reader: LateReader, path: str = "verbs") -> None:
        """Until every object comes by it, into the first buffers."""
        process.wait_until(f"reads by {path}", lambda: is_right(reader.read(0, len(self.objects), 20_000), f"ok {path}"),
                           [kelpd.child], PATIENCE_S)

    def stranger(self, scene: str, *words: object, keys: Path | None = None) -> list[dict[str, Any]]:
        """What test_verbs_stranger says of each of its connections."""
        argv = [self.programs / "test_verbs_stranger", ADDRESS, str(RDMA_PORT), keys or "-", scene, *map(str, words)]
        done = subprocess.run(argv, capture_output=True, timeout=PATIENCE_S * 2, check=False)
        if done.returncode != 0:
            raise process.LabError(f"test_verbs_stranger {scene} ended with {done.returncode}: {done.stderr.decode()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def peers(self, kelpd: daemon.Daemon, path: str = "verbs") -> list[dict[str, Any]]:
        return [peer for peer in kelpd.control("/peers")["peers"] if peer["path"] == path]

    @staticmethod
    def resources() -> dict[str, int]:
        """What the adapter's driver has for everybody: {"qp": n, "cq": n, "mr": n, "pd": n, "cm_id": n}."""
        shown = json.loads(subprocess.run(["rdma", "-j", "resource"], capture_output=True, check=True).stdout)
        return {kind: count for kind, count in shown[0].items() if isinstance(count, int) and kind != "ifindex"}

    @staticmethod
    def rnr_and_retries() -> dict[str, int]:
        counters = Path("/sys/class/infiniband/rxe0/ports/1/hw_counters")
        return {name: int((counters / name).read_text())
                for name in ("rcvd_rnr_err", "send_rnr_err", "completer_retry_err", "retry_exceeded_err", "sent_pkts")}
