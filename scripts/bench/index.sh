#!/usr/bin/env bash
# What the index of a large volume costs: memory per needle (loaded, growing, reloading), rows per second beside a reserved
# absl::flat_hash_map, and a look-up beside two dependent random loads. Times are CPU times; what is compared runs in turns.
#   scripts/bench/index.sh                     a table, for a volume of 10^7 needles
#   scripts/bench/index.sh --json              one JSON document
#   scripts/bench/index.sh --needles 1000000   another size; also --overwrites F, --deletes F, --width 4
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/bench/common.sh
benchmark "--json --needles --overwrites --deletes --width --turns --rounds" kelp-index-compare -- "$@"
