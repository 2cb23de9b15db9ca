#!/usr/bin/env bash
# Installs what is missing, checks the layout of the code, builds with warnings as errors and runs every test: ring and
# worker under the thread sanitizer, all under the address and undefined-behaviour sanitizers, the fuzzers for a moment,
# of the build for ARM64 what runs in emulation, all in the release build against real SeaweedFS servers. Ends with
# ctest's summaries; exit code 0 when everything passed.
#
#   scripts/test.sh            everything
#   scripts/test.sh --quick    the release build only
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(tsan asan fuzz aarch64 release)
case "${1:-}" in
  "") ;;
  --quick) presets=(release) ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "scripts/${0##*/}"
     [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
esac

say() { printf '[%4d s] %s\n' "$SECONDS" "$1"; }

failed=()
summaries=()

check_format() {
  local files offending
  # git refuses a tree of another user, and a tarball has none; without files clang-format would wait for stdin.
  mapfile -t files < <(git ls-files -co --exclude-standard -- '*.h' '*.cc' '*.c' 2>/dev/null ||
    find shm_ring dataplane control tools tests -name '*.h' -o -name '*.cc' -o -name '*.c')
  if offending=$(clang-format --dry-run --Werror "${files[@]}" 2>&1); then return; fi
  offending=$(sed -n 's/^\(.*\):[0-9]*:[0-9]*: error: .*clang-format.*/\1/p' <<<"$offending" | sort -u)
  printf 'clang-format would change:\n%s\n' "$offending"
  failed+=("clang-format")
}

# Builds every preset, one after the other, by what CPU time the tests of those before leave over: most of them wait.
build_all() {
  local preset
  for preset in "$@"; do
    if { cmake --preset "$preset" -DKELP_WERROR=ON && cmake --build --preset "$preset"; } >"build/$preset/build.log" 2>&1; then
      echo ok >"build/$preset/build.status"
    else
      echo failed >"build/$preset/build.status"
    fi
  done
}

# Until build_all has come to an end with it.
built() {
  local preset=$1
  until [[ -s build/$preset/build.status ]]; do
    sleep 1
    kill -0 "$builder" 2>/dev/null || [[ -s build/$preset/build.status ]] || echo failed >"build/$preset/build.status"
  done
  [[ $(<"build/$preset/build.status") == ok ]] && return
  tail -n 60 "build/$preset/build.log"
  failed+=("build of $preset (all output: build/$preset/build.log)")
  return 1
}

run_tests() {
  local preset=$1 log=build/$1/ctest.log
  ctest --preset "$preset" --output-on-failure | tee "$log" ||
    # What broke, where it is looked for: at the end.
    failed+=("tests of $preset" "$(grep -E 'BROKEN: |^FAIL |^failed: | ERROR: ' "$log" | cut -c1-300 | head -n 30)")
  summaries+=("$preset"$'\n'"$(sed -n '/% tests passed/,$p' "$log")")
}

# By name, in the summary too.
skip() {
  say "skipping $1: $2"
  summaries+=("$1"$'\n'"skipped: $2")
  local preset left=()
  for preset in "${presets[@]}"; do
    [[ $preset == "$1" ]] || left+=("$preset")
  done
  presets=("${left[@]}")
}

say "checking packages"
scripts/install-deps.sh --tests
say "checking the layout of the code"
check_format
if [[ " ${presets[*]} " == *" fuzz "* ]] && ! command -v clang++ >/dev/null; then
  skip fuzz "no clang++ here"
fi
if [[ " ${presets[*]} " == *" aarch64 "* ]]; then
  say "fetching what is compiled for ARM64"
  scripts/cross-aarch64.sh --prepare || [[ $? != 77 ]] || skip aarch64 "no cross compiler, or no libraries of Debian 12 arm64, here"
fi
for preset in "${presets[@]}"; do
  mkdir -p "build/$preset"
  rm -f "build/$preset/build.status"
done
set -m  # a group of its own, which ends with us
build_all "${presets[@]}" &
builder=$!
set +m
trap 'kill -- -"$builder" 2>/dev/null || true' EXIT
chrt --idle --pid 0 "$builder" >/dev/null 2>&1 || renice -n 19 "$builder" >/dev/null 2>&1 || true
for preset in "${presets[@]}"; do
  say "building $preset"
  if built "$preset"; then
    say "testing $preset"
    run_tests "$preset"
  fi
done

say "summary"
printf '%s\n\n' "${summaries[@]}"
if ((${#failed[@]} > 0)); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
