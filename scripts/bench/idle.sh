#!/usr/bin/env bash
# What an idle kelpd costs: its CPU share with silent clients attached, quiet and beside 1 000 writes per second to the
# weed whose volumes it serves, and the first request after a second of silence beside a bare eventfd wake. Under 5 minutes.
#   scripts/bench/idle.sh          prints a table
#   scripts/bench/idle.sh --json   prints one JSON document
#   scripts/bench/idle.sh --quick  a few seconds: whether it works, not how much it costs
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl kelp-wake-compare -- "$@"
