#!/usr/bin/env bash
# What hostile programs cost a well-behaved one: the p99 of its 4 KiB reads while another client misbehaves, over its p99
# alone, in alternating slices of one run. The worker polls on a CPU of its own; one program on the other CPU plays both
# clients, the hostile one's part before each measured read: so the figure is what hostility costs in kelpd, not on the CPU.
#   scripts/bench/hostile.sh          a table
#   scripts/bench/hostile.sh --json   one JSON document
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --pairs" kelpd kelpctl kelp-hostile-compare -- "$@"
