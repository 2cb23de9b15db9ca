#!/usr/bin/env bash
# Latency profiles: a matrix of sizes and depths through Kelp, over weed's HTTP, and what a read consists of; of reads of the
# volume's files, or of those by RDMA in the Soft-RoCE guest. Leaves raw HdrHistogram logs, CSV, PNG and one self-contained
# HTML page in a directory. About 2 minutes; by RDMA 4.
#   scripts/profile_latency.sh [--path local|verbs] [--output DIR] [--quick]
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in
  *" --help "* | *" -h "*) sed -n '2,5s/^# \{0,1\}//p' "scripts/${0##*/}"; exit 0 ;;
esac

scripts/install-deps.sh --bench >&2
cmake --preset release >/dev/null
cmake --build --preset release --target kelpd kelpctl kelp-bench kelp-floor-compare kelp-ring-compare kelp-verbs-bare >&2
exec python3 scripts/profile_latency.py --programs build/release/bin "$@"
