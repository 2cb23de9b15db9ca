#!/usr/bin/env bash
# What reads over TCP between two kelpds of this host cost, made by the load generator in the gateway's worker: a 4 KiB read
# over a bare spinning ping-pong of the same bytes and weed's HTTP over it, requests per second of the server's CPU time
# against weed, 1 MiB throughput over a bare io_uring stream, and the same reads made by a program. All in turns, page cache
# warm. About 2 minutes.
#   scripts/bench/tcp.sh          prints a table
#   scripts/bench/tcp.sh --json   prints one JSON document
#   scripts/bench/tcp.sh --quick  few slices: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl kelp-bench kelp-tcp-bare -- "$@"
