"""What a volume holds, page by page."""

from __future__ import annotations

import json

from control_socket import ask
from scene import Scene, expect, is_alive, promise, wait_for


@promise("needles")
def pages_list_every_live_needle_of_a_volume_with_its_file_id(scene: Scene) -> None:
    rows = [json.loads(line) for line in (scene.fixtures / "manifest.jsonl").read_text().splitlines()]
    # An empty needle is read with any cookie, so only others have one file id.
    readable = {row["fid"] for row in rows
                if row["set"] == "vs" and row["volume"] == 1 and row["status"] == 200 and row["size"] > 0}
    with scene.kelpd(scene.volumes()) as kelpd:
        wait_for("the volume", lambda: any(one["id"] == 1 and one["state"] == "serving" for one in kelpd.volumes()), kelpd)
        live = next(one["needles"] for one in kelpd.volumes() if one["id"] == 1)
        for limit in (3, 1000):
            listed, start = [], 0
            while start is not None:
                status, page = ask(kelpd, "GET", f"/volumes/1/needles?from={start}&limit={limit}&cookies=1")
                expect(status == 200 and len(page["needles"]) <= limit, f"HTTP {status}: {page}")
                listed += page["needles"]
                start = page["next"]
            expect(len(listed) == live, f"{len(listed)} needles are listed, the index has {live}")
            missing = readable - {needle["fid"] for needle in listed}
            expect(not missing, f"not listed: {missing}")
        expect("fid" not in ask(kelpd, "GET", "/volumes/1/needles?limit=1")[1]["needles"][0], "cookies were not asked for")


@promise("needles")
def a_listing_of_nonsense_is_refused(scene: Scene) -> None:
    with scene.kelpd(scene.volumes()) as kelpd:
        wanted = {"/volumes/": 404, "/volumes/1": 404, "/volumes/needles": 404, "/volumes//needles": 404, "/volumes/x/needles": 404,
                  "/volumes/-1/needles": 404, "/volumes/4294967296/needles": 404, "/volumes/77777/needles": 404,
                  "/volumes/1/needles?limit=0": 400, "/volumes/1/needles?limit=10001": 400, "/volumes/1/needles?from=-1": 400,
                  "/volumes/1/needles?from=18446744073709551616": 400, "/volumes/1/needles?cookies=2": 400,
                  "/volumes/1/needles?lmit=3": 400}
        for target, status in wanted.items():
            expect(ask(kelpd, "GET", target)[0] == status, f"{target}: HTTP {ask(kelpd, 'GET', target)}")
        is_alive(kelpd)
