#!/usr/bin/env bash
# What a stock weed mount 4.44 takes to read through kelpd's HTTP read API, by plain bodies and by temporary files in a tmpfs, in turns:
# files of 4 MiB from one end to the other, and 4 KiB and 128 KiB at random places, past the page cache. About 2 minutes. Needs root
# and /dev/fuse; skipped (77) without.
#   scripts/bench/mount.sh          prints a table
#   scripts/bench/mount.sh --json   prints one JSON document
#   scripts/bench/mount.sh --quick  few rounds: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl -- "$@"
