#!/usr/bin/env bash
# How long a 4 KiB read takes through Kelp's ring and over weed's HTTP with keep-alive: depth 1, page cache warm, in
# turns, kelpd's worker on a CPU of its own. The HTTP client is held against `wrk -c1` in the same run. Under 2 minutes;
# exit code 0 when it was measured, whatever the figures say.
#   scripts/bench/read.sh          prints a table
#   scripts/bench/read.sh --json   prints one JSON document
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json" kelpd kelpctl kelp-read-compare -- "$@"
