#!/usr/bin/env bash
# Builds all of Kelp for ARM64 on another machine, warnings as errors, in build/aarch64: Debian's cross compiler and
# the libraries of Debian 12 arm64, of which nothing is run. Programs and tests run under QEMU's user emulation.
#
#   scripts/cross-aarch64.sh             what is missing, and the build
#   scripts/cross-aarch64.sh --prepare   only what is missing: packages and sysroot
#   scripts/cross-aarch64.sh --test      and ctest: the unit tests, and the fixtures through kelpd and kelpctl
#
# Exit code 77: there is no cross compiler, or no arm64 libraries, to be had here.
set -euo pipefail
cd "$(dirname "$0")/.."

sysroot=build/aarch64/sysroot
mode=${1:-}
case "$mode" in
  "" | --prepare | --test) ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "scripts/${0##*/}"
     [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
esac

unavailable() {
  echo "$1" >&2
  exit 77
}

# Only unpacked: none of its programs is run. A list beside it says of which packages it was made.
make_sysroot() {
  local libraries
  libraries=$(scripts/install-deps.sh --libraries | paste -sd,)
  [[ -f $sysroot.packages && $(<"$sysroot.packages") == "$libraries" ]] && return
  rm -rf "$sysroot" "$sysroot.packages"
  mkdir -p "${sysroot%/*}"
  local options=(--quiet --variant=extract --architectures=arm64 --include="$libraries")
  ((EUID == 0)) || options+=(--mode=chrootless)
  mmdebstrap "${options[@]}" bookworm "$sysroot" || return
  rm -rf "$sysroot"/{dev,tmp}  # QEMU would find them in place of those of this machine
  echo "$libraries" >"$sysroot.packages"
}

scripts/install-deps.sh --cross || unavailable "no cross compiler for ARM64 to be had here"
make_sysroot || unavailable "no libraries of Debian 12 arm64 to be had here"
[[ $mode == --prepare ]] && exit
cmake --preset aarch64 -DKELP_WERROR=ON
cmake --build --preset aarch64
[[ $mode == --test ]] || exit 0
ctest --preset aarch64 --output-on-failure
