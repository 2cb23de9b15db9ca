#!/usr/bin/env bash
# Builds the fuzzers and runs them, two at a time, at the lowest priority. Exit code 1 if one of them found something.
#
#   scripts/fuzz.sh                          all of them, a minute each
#   scripts/fuzz.sh needle vif --minutes 30  those, half an hour each
#   scripts/fuzz.sh --merge                  adds what was found to tests/fuzz/corpus, minimised, and runs nothing
#
# What they found interesting stays in build/fuzz/corpus/NAME and is where the next run starts. An input that broke a
# promise is build/fuzz/found-NAME-*; `build/fuzz/bin/fuzz_NAME FILE` shows it again.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,9s/^# \{0,1\}//p' "scripts/${0##*/}"; }

build=build/fuzz
minutes=1
merge=false
names=()
while (($# > 0)); do
  case "$1" in
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --merge) merge=true ;;
    -h | --help) usage; exit 0 ;;
    -*) usage; exit 2 ;;
    *) [[ -f tests/fuzz/$1_fuzz.cc ]] || { echo "no such fuzzer: $1" >&2; exit 2; }
       names+=("$1") ;;
  esac
  shift
done
if ((${#names[@]} == 0)); then
  mapfile -t names < <(cd tests/fuzz && ls -- *_fuzz.cc | sed 's/_fuzz\.cc$//')
fi

scripts/install-deps.sh --fuzz
mkdir -p "$build"
echo "building ${#names[@]} fuzzers"
{ cmake --preset fuzz && cmake --build --preset fuzz; } >"$build/build.log" 2>&1 ||
  { tail -n 40 "$build/build.log"; exit 1; }

if $merge; then
  for name in "${names[@]}"; do
    fresh=$(mktemp -d "$build/merge.XXXXXX")
    "$build/bin/fuzz_$name" -merge=1 "$fresh" "tests/fuzz/corpus/$name" "$build/corpus/$name" >"$build/$name.log" 2>&1
    rm -rf "tests/fuzz/corpus/$name"
    mv "$fresh" "tests/fuzz/corpus/$name"
    chmod 755 "tests/fuzz/corpus/$name"
    echo "$name: $(ls "tests/fuzz/corpus/$name" | wc -l) inputs, $(cat "tests/fuzz/corpus/$name"/* | wc -c) bytes"
  done
  exit 0
fi

# One fuzzer, to the end of its time or its first finding.
run() {
  local name=$1 log=$build/$1.log dictionary=() status=0
  [[ -f tests/fuzz/$name.dict ]] && dictionary=("-dict=tests/fuzz/$name.dict")
  mkdir -p "$build/corpus/$name"
  nice -n 19 "$build/bin/fuzz_$name" "-max_total_time=$((minutes * 60))" -timeout=20 -rss_limit_mb=2048 \
    -print_final_stats=1 "-artifact_prefix=$build/found-$name-" "${dictionary[@]}" \
    "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1 || status=$?
  echo "$status" >"$build/$name.status"
  summary "$name"
}

# "needle: 123456 runs, 700 edges, nothing found", from libFuzzer's own last words.
summary() {
  local name=$1 log=$build/$1.log verdict="nothing found"
  [[ $(cat "$build/$name.status") == 0 ]] || verdict="FOUND something: $log"
  printf '%-16s %12s runs  %6s edges  %6s inputs  %s\n' "$name" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)" \
    "$(ls "$build/corpus/$name" | wc -l)" "$verdict"
}

echo "fuzzing for $minutes min each, logs in $build/"
for name in "${names[@]}"; do
  while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
  echo "$name started at $(date +%T)"
  run "$name" &
done
wait

failed=0
for name in "${names[@]}"; do
  [[ $(cat "$build/$name.status") == 0 ]] || failed=1
done
exit "$failed"
