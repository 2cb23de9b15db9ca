#!/usr/bin/env bash
# What the ring costs: a no-op through libkelp and kelpd's worker beside a bare ping-pong over two cache lines (in turns, on
# the same two CPUs), system calls of a polling client, and instructions of client and worker per no-op (callgrind).
#   scripts/bench/ring.sh          a table
#   scripts/bench/ring.sh --json   one JSON document
set -euo pipefail
cd "$(dirname "$0")/../.."

case "${1:-}" in
  "" | --json) ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "scripts/bench/${0##*/}"
     [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
esac

scripts/install-deps.sh --bench >&2
cmake --preset release >/dev/null
cmake --build --preset release --target kelpd kelpctl kelp-ring-compare kelp-noop-harness >&2
exec python3 scripts/bench/ring.py --programs build/release/bin "$@"
