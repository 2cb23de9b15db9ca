#!/usr/bin/env bash
# What a read by HTTP costs: 4 KiB through a kelpd that has only a master, beside libcurl alone with keep-alive; and what it
# costs others: the p99 of local reads beside 200 reads that no server answers, over their p99 alone. In turns. About 2 minutes.
#   scripts/bench/http_reads.sh          prints a table
#   scripts/bench/http_reads.sh --json   prints one JSON document
#   scripts/bench/http_reads.sh --quick  few slices: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl kelp-http-compare -- "$@"
