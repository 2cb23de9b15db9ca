#!/usr/bin/env bash
# Kelp beside a real SeaweedFS, from nothing: installs what is missing, builds, starts a SeaweedFS on loopback, stores
# objects, starts kelpd, reads every object through the ring, compares each byte with SeaweedFS's own answer and prints
# how long both take. Stops everything it started.
#
#   scripts/quickstart.sh          about 2 minutes the first time, well under one afterwards
#   scripts/quickstart.sh --keep   leaves SeaweedFS and kelpd running and says what to try next
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "" | --keep) ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "scripts/${0##*/}"
     [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
esac

KELP_STARTED=$(date +%s.%N)  # later steps count their seconds from here
export KELP_STARTED
say() {
  awk -v from="$KELP_STARTED" -v now="$(date +%s.%N)" -v line="$1" 'BEGIN { printf "[%6.1f s] %s\n", now - from, line }' >&2
}

say "checking packages"
scripts/install-deps.sh
say "building (release)"
mkdir -p build
if ! { cmake --preset release && cmake --build --preset release --target kelpd kelpctl kelp-read-compare; } >build/quickstart.log 2>&1; then
  tail -n 40 build/quickstart.log >&2
  echo "The build failed; all of its output is in build/quickstart.log." >&2
  exit 1
fi
exec python3 scripts/quickstart.py --programs build/release/bin "$@"
