#!/usr/bin/env bash
# What the ring costs: a no-op through libkelp and kelpd's worker beside a bare ping-pong over two cache lines (in turns, on
# the same two CPUs), system calls of a polling client, and instructions of client and worker per no-op (callgrind).
#   scripts/bench/ring.sh          a table
#   scripts/bench/ring.sh --json   one JSON document
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json" kelpd kelpctl kelp-ring-compare kelp-noop-harness -- "$@"
