#!/usr/bin/env bash
# What an idle kelpd costs: its CPU share with silent clients attached, quiet and beside 1 000 writes per second to the
# weed whose volumes it serves, and the first request after a second of silence beside a bare eventfd wake. Under 5 minutes.
#   scripts/bench/idle.sh          prints a table
#   scripts/bench/idle.sh --json   prints one JSON document
#   scripts/bench/idle.sh --quick  a few seconds: whether it works, not how much it costs
set -euo pipefail
cd "$(dirname "$0")/../.."

for word in "$@"; do
  case "$word" in
    --json | --quick) ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "scripts/bench/${0##*/}"
       [[ $word == --help || $word == -h ]] && exit 0 || exit 2 ;;
  esac
done

scripts/install-deps.sh --bench >&2
cmake --preset release >/dev/null
cmake --build --preset release --target kelpd kelpctl kelp-wake-compare >&2
exec python3 scripts/bench/idle.py --programs build/release/bin "$@"
