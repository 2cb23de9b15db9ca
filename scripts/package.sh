#!/usr/bin/env bash
# Builds the Debian packages, and has lintian look at them: kelp (kelpd, kelpctl, kelp-bench, units), libkelp0 (the library
# of programs) and libkelp-dev (what they are built with). Debug information is in packages of its own,
# in the directory debug there.
#
#   scripts/package.sh                    into build/packages
#   scripts/package.sh --output DIR       into DIR
#   scripts/package.sh -DKELP_WERROR=ON   options for CMake
set -euo pipefail
cd "$(dirname "$0")/.."

output=build/packages options=()
while (($# > 0)); do
  case "$1" in
    --output) output=${2:?--output needs a directory}; shift 2 ;;
    -D*) options+=("$1"); shift ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "scripts/${0##*/}"
       [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
  esac
done

say() { printf '[%4d s] %s\n' "$SECONDS" "$1"; }

readonly build=$PWD/build/package
readonly stage=$build/debian  # dpkg-buildpackage puts what it makes beside the tree it is given

# The version stands in CMakeLists.txt alone.
write_changelog() {
  local version seconds
  version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
  seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
  printf 'kelp (%s) unstable; urgency=medium\n\n  * Kelp %s.\n\n -- Kelp maintainers <kelp@localhost>  %s\n' \
    "$version" "$version" "$(date --utc --rfc-email --date "@$seconds")"
}

# Runs a step; its output is shown only where it fails.
step() {
  local log=$build/$1.log
  say "$2"
  shift 2
  "$@" >"$log" 2>&1 && return
  tail -n 40 "$log" >&2
  echo "package.sh: failed, all output: $log" >&2
  exit 1
}

mkdir -p "$build" "$output"
output=$(realpath "$output")
say "checking packages"
scripts/install-deps.sh --packages
step configure "configuring" cmake --preset package "${options[@]}"
step build "building" cmake --build --preset package

rm -rf "$stage"
mkdir -p "$stage/kelp"
cp -r packaging/debian "$stage/kelp/debian"
write_changelog >"$stage/kelp/debian/changelog"
cd "$stage/kelp"
KELP_BUILD=$build step packages "making packages" dpkg-buildpackage --build=binary --no-sign
cd "$OLDPWD"
# Who distributes the packages puts an address of their own in place of one that reaches nobody.
step lintian "looking at them with lintian" lintian --fail-on error,warning \
  --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$stage"/*.changes

rm -rf "$output"/{kelp,libkelp0,libkelp-dev}_*.deb "$output/debug"
if compgen -G "$stage/*-dbgsym_*" >/dev/null; then
  mkdir "$output/debug"
  mv "$stage"/*-dbgsym_*.deb "$output/debug"
fi
mv "$stage"/*.deb "$output"
say "done"
ls -1 "$output"/*.deb
