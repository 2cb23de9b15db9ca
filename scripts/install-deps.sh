#!/usr/bin/env bash
# Installs the Debian packages Kelp is built and tested with, where they are missing. Does nothing when all are there.
#   scripts/install-deps.sh           to build and to run scripts/quickstart.sh
#   scripts/install-deps.sh --tests   and for scripts/test.sh
#   scripts/install-deps.sh --bench   and for scripts/bench/
#   scripts/install-deps.sh --fuzz    and for scripts/fuzz.sh
#   scripts/install-deps.sh --cross   and for scripts/cross-aarch64.sh
#   scripts/install-deps.sh --packages   and for scripts/package.sh
#   scripts/install-deps.sh --libraries   installs nothing: prints the libraries Kelp is compiled with, one a line
set -euo pipefail

libraries=(
  libexpected-dev libtomlplusplus-dev libcli11-dev doctest-dev nlohmann-json3-dev libspdlog-dev libfmt-dev
  libmicrohttpd-dev libboost-dev libsystemd-dev libcurl4-openssl-dev libjwt-dev libisal-dev liburing-dev libibverbs-dev librdmacm-dev libabsl-dev zlib1g-dev libssl-dev
)
packages=(g++ cmake ninja-build ccache pkg-config git ca-certificates python3 python3-venv zstd "${libraries[@]}")
case "${1:-}" in
  "") ;;
  --tests) packages+=(clang-format clang libclang-rt-14-dev debhelper dpkg-dev lintian mmdebstrap systemd-container) ;;
  --fuzz) packages+=(clang libclang-rt-14-dev) ;;
  --bench) packages+=(wrk strace valgrind perftest e2fsprogs) ;;
  --cross) packages+=(g++-aarch64-linux-gnu qemu-user-static mmdebstrap) ;;
  --libraries) printf '%s\n' "${libraries[@]}"; exit ;;
  --packages) packages+=(build-essential debhelper dpkg-dev lintian) ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
  echo "This is not Debian. Needed are the equivalents of: ${packages[*]}" >&2
  exit 1
fi

# dpkg-query exits with 1 for names it has never heard of; those are missing all the same.
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii  *//p' || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "All ${#packages[@]} Debian packages are installed."
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "Missing Debian packages: ${missing[*]}" >&2
    echo "Neither root nor sudo is at hand. As root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@"; }
install() { apt update && apt install -y --no-install-recommends "${missing[@]}" >/dev/null; }
# Mirrors have their moments.
install || { sleep 5; install; } || { sleep 20; install; }
