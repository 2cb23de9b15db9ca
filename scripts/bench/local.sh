#!/usr/bin/env bash
# What a local 4 KiB read costs beside the least it could: Kelp's p50 over an in-process floor (look-up, fstat, pread,
# CRC, no ring), and requests per second of CPU time, client's and server's together, over weed's HTTP keep-alive at several
# depths (HTTP with as many connections). All in turns, page cache warm. About 2 minutes.
#   scripts/bench/local.sh          prints a table
#   scripts/bench/local.sh --json   prints one JSON document
#   scripts/bench/local.sh --quick  few slices: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl kelp-bench kelp-floor-compare -- "$@"
