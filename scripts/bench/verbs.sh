#!/usr/bin/env bash
# What reads by RDMA between two kelpds cost, in one boot of the Soft-RoCE guest (scripts/soft-roce), made by the load
# generator in the gateway's worker: a 4 KiB read over what perftest and a bare pread take for its parts; throughput over a
# bare loop of the same pattern that spins; doorbells, signals, retries and sleeps per request; workers that sleep beside
# those that do not; CPU of both kelpds while nothing is read; and the same read made by a program. All in turns; the target
# keeps no needles, so that each read is a pread. Where a throughput is missed, what the time goes to. About 5 minutes, of
# a machine that does nothing else. Skipped (77) where the guest cannot be had.
#   scripts/bench/verbs.sh          prints a table
#   scripts/bench/verbs.sh --json   prints one JSON document
#   scripts/bench/verbs.sh --quick  few slices: whether it works, not how fast
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --quick" kelpd kelpctl kelp-bench kelp-verbs-bare -- "$@"
