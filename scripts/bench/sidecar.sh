#!/usr/bin/env bash
# What the sidecar's HTTP /read costs: 4 KiB from a local volume by wrk with 16 connections, and with one, beside weed's own HTTP in
# turns: requests per second, p99, CPU a request. Then the same read by a program through the ring. About 3 minutes. Needs wrk.
#   scripts/bench/sidecar.sh          prints a table
#   scripts/bench/sidecar.sh --json   prints one JSON document
#   scripts/bench/sidecar.sh --quick  few slices: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl -- "$@"
