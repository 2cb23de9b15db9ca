"""Manual pages, shell completion and scripts/hugepages.sh, held against the programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from scene import Scene, Skipped, expect, promise

ROOT = Path(__file__).resolve().parents[2]
COMPLETION = ROOT / "tools/completion/kelpctl.bash"
HUGEPAGES = ROOT / "scripts/hugepages.sh"
PAGES = {"kelpd": ROOT / "docs/man/kelpd.8", "kelpctl": ROOT / "docs/man/kelpctl.1"}
LIBRARY_PAGE = ROOT / "docs/man/kelp.3"
ARGUMENT = r'"([^"]*)"|(\S+)'  # of a macro of mdoc


def said(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def options(text: str) -> set[str]:
    """Long options at the start of a line of --help, or after a short one."""
    return set(re.findall(r"^ +(?:-\w,)?(--[a-z][a-z-]*)", text, flags=re.MULTILINE))


def commands(scene: Scene) -> list[str]:
    text = said(scene.programs / "kelpctl", "--help")
    found = re.findall(r"^  ([a-z]+) {2,}", text.split("Subcommands:")[1], flags=re.MULTILINE)
    expect(len(found) >= 12, f"kelpctl --help has only the commands {found}")
    return found


def help_of(scene: Scene) -> dict[str, set[str]]:
    """Options by "kelpd", "kelpctl" and "kelpctl COMMAND"."""
    texts = {"kelpd": said(scene.programs / "kelpd", "--help"), "kelpctl": said(scene.programs / "kelpctl", "--help")}
    for command in commands(scene):
        texts[f"kelpctl {command}"] = said(scene.programs / "kelpctl", command, "--help")
    found = {name: options(text) for name, text in texts.items()}
    expect("--config" in found["kelpd"] and "--offset" in found["kelpctl read"], f"options are not found: {found}")
    return found


@promise("manuals")
def every_option_and_command_is_in_its_manual_page(scene: Scene) -> None:
    for name, wanted in help_of(scene).items():
        program, _, command = name.partition(" ")
        page = PAGES[program].read_text()
        missing = {option for option in wanted if f"Fl {option[1:]}" not in page}
        expect(not missing, f"{PAGES[program].name} does not have {missing}")
        expect(not command or f".It Cm {command}" in page, f"{PAGES[program].name} does not have {command}")


@promise("manuals")
def the_page_of_the_library_has_every_function_as_the_header_declares_it(_: Scene) -> None:
    header = re.sub(r"\s", "", (ROOT / "shm_ring/kelp.h").read_text())
    declared = set(re.findall(r"KELP_API[\w*]*?(kelp_\w+\([^)]*\));", header))
    declared = {re.sub(r"^kelp_status(?=kelp_)", "", one) for one in declared}
    synopsis = LIBRARY_PAGE.read_text().split(".Sh DESCRIPTION")[0]
    shown = {f"{name}({','.join(a or b for a, b in re.findall(ARGUMENT, words))})".replace(" ", "")
             for name, words in re.findall(r"^\.Fn (kelp_\w+) (.*)$", synopsis, flags=re.MULTILINE)}
    expect(len(declared) > 20, f"kelp.h declares only {declared}")
    expect(shown == declared, f"only in one of them: {sorted(shown ^ declared)}")


@promise("manuals")
def the_manual_pages_are_formatted_without_a_warning(scene: Scene) -> None:
    if not shutil.which("groff"):
        raise Skipped("groff is not installed")
    for page in (*PAGES.values(), LIBRARY_PAGE):
        done = subprocess.run(["groff", "-mdoc", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 0 and not done.stderr, f"{page.name}: {done.stderr}")


def completed(words: list[str]) -> set[str]:
    """What bash offers behind the words, of which the last is begun."""
    script = (f'source "{COMPLETION}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$1"; printf "%s\\n" "${{COMPREPLY[@]}}"')
    return set(said("bash", "-c", script, "bash", *words).split())


@promise("manuals")
def every_option_and_command_is_completed(scene: Scene) -> None:
    for name, wanted in help_of(scene).items():
        missing = wanted - completed([*name.split(), "--"])
        expect(not missing, f"{name} does not complete {missing}")
    missing = set(commands(scene)) - completed(["kelpctl", ""])
    expect(not missing, f"kelpctl does not complete {missing}")
    expect(completed(["kelpctl", "--json", "rel"]) == {"reload"}, "a command behind an option is not completed")


def hugepages(scene: Scene, *words: str) -> subprocess.CompletedProcess[str]:
    """The script on a sysfs of our own with two nodes."""
    sys = scene.home / "sys"
    for pool in ("kernel/mm", "devices/system/node/node0", "devices/system/node/node1"):
        folder = sys / pool / "hugepages/hugepages-2048kB"
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "nr_hugepages").write_text("0\n")
            (folder / "free_hugepages").write_text("0\n")
    environment = {**os.environ, "KELP_SYSFS": str(sys), "KELP_SYSCTL_FILE": str(scene.home / "sysctl.conf")}
    return subprocess.run([HUGEPAGES, *words], capture_output=True, text=True, timeout=60, check=False, env=environment)


@promise("manuals")
def hugepages_are_shown_reserved_persisted_and_released(scene: Scene) -> None:
    shown = hugepages(scene, "show")
    expect(shown.returncode == 0 and shown.stdout.count("MiB") == 3, f"show: {shown}")
    if os.geteuid() != 0:
        done = hugepages(scene, "reserve", "8")
        expect(done.returncode == 1 and "only root" in done.stderr, f"reserve without root: {done}")
        raise Skipped("reserve needs root")
    node = scene.home / "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    pool = scene.home / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    expect(hugepages(scene, "reserve", "8", "--node", "1").returncode == 0 and node.read_text() == "8\n", "node 1 has no pages")
    expect(hugepages(scene, "persist").returncode == 1, "an empty pool is persisted")
    expect(hugepages(scene, "reserve", "16").returncode == 0 and pool.read_text() == "16\n", "there is no pool")
    expect(hugepages(scene, "persist").returncode == 0, "nothing is persisted")
    expect((scene.home / "sysctl.conf").read_text() == "vm.nr_hugepages = 16\n", "another number is persisted")
    expect(hugepages(scene, "release").returncode == 0 and pool.read_text() == "0\n", "the pool stays")
    expect(not (scene.home / "sysctl.conf").exists(), "the persisted number stays")


@promise("manuals")
def hugepages_says_what_it_does_not_understand(scene: Scene) -> None:
    for words, code, sentence in ((["reserve"], 2, "how many"), (["reserve", "-1"], 2, "whole number"), (["reserve", "1", "2"], 2, "unknown"),
                                  (["reserve", "1", "--node", "7"], 1, "no NUMA node 7; there are 0 1"), (["show", "x"], 2, "nothing more"),
                                  (["resrve"], 2, "hugepages.sh show")):
        done = hugepages(scene, *words)
        expect(done.returncode == code and sentence in done.stderr, f"{words}: {done}")
    expect("reserve N" in hugepages(scene, "--help").stdout, "there is no help")
