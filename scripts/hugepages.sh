#!/usr/bin/env bash
# Shows and reserves the 2 MiB hugepages that clients' data areas are made of.
#
#   scripts/hugepages.sh show                    the pool, per NUMA node
#   scripts/hugepages.sh reserve N [--node K]    a pool of N pages, on node K or as the kernel spreads them
#   scripts/hugepages.sh persist                 keep the pool of now over a reboot (/etc/sysctl.d/60-kelp-hugepages.conf)
#   scripts/hugepages.sh release                 an empty pool, and nothing persisted
#
# hugeadm (package libhugetlbfs-bin) sets the pool where it is installed, sysfs otherwise. All but show need root.
set -euo pipefail

readonly size_kib=2048
readonly sysctl_file=${KELP_SYSCTL_FILE:-/etc/sysctl.d/60-kelp-hugepages.conf}
readonly sys=${KELP_SYSFS:-/sys}
readonly pool=$sys/kernel/mm/hugepages/hugepages-${size_kib}kB

fail() { echo "hugepages.sh: $1" >&2; exit "${2:-1}"; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
node_pools() { ls -d "$sys"/devices/system/node/node[0-9]*/hugepages/hugepages-${size_kib}kB 2>/dev/null | sort -V || true; }
pages() { cat "$1/nr_hugepages"; }

need_pool() { [[ -d $pool ]] || fail "this kernel has no hugepages of 2 MiB ($pool is missing)"; }
need_root() { ((EUID == 0)) || fail "only root can change the pool: sudo $0 $*"; }
whole_number() { [[ $1 =~ ^[0-9]{1,9}$ ]] || fail "$2: \"$1\" is not a whole number" 2; }

show() {
  printf '%-6s  %8s  %8s  %s\n' NODE PAGES FREE MEMORY
  local node
  for node in $(node_pools); do
    printf '%-6s  %8d  %8d  %d MiB\n' "$(basename "$(dirname "$(dirname "$node")")" | tr -d a-z)" "$(pages "$node")" \
      "$(cat "$node/free_hugepages")" "$(($(pages "$node") * size_kib / 1024))"
  done
  printf '%-6s  %8d  %8d  %d MiB\n' all "$(pages "$pool")" "$(cat "$pool/free_hugepages")" "$(($(pages "$pool") * size_kib / 1024))"
  if [[ -e $sysctl_file ]]; then echo "persisted: $(grep -o '[0-9]*$' "$sysctl_file") pages in $sysctl_file"; fi
}

# The kernel gives what it finds in one piece, without an error: what came of it is read back.
set_pool() {
  local where=$1 wanted=$2
  if [[ $where == "$pool" && $sys == /sys ]] && command -v hugeadm >/dev/null; then
    hugeadm --pool-pages-max "${size_kib}KB:$wanted" --pool-pages-min "${size_kib}KB:$wanted" >/dev/null 2>&1 || true
  fi
  [[ $(pages "$where") == "$wanted" ]] || echo "$wanted" >"$where/nr_hugepages" || fail "cannot write $where/nr_hugepages"
  local got
  got=$(pages "$where")
  ((got == wanted)) && return
  if ((got > wanted)); then fail "$got pages stay: $((got - wanted)) are in use; end the programs that hold them"; fi
  fail "the kernel found room for $got of $wanted pages: memory is in use or in pieces; reserve soon after a boot, or fewer"
}

reserve() {
  local count=${1:-} where=$pool
  [[ -n $count ]] || fail "reserve how many pages? reserve N [--node K]" 2
  whole_number "$count" reserve
  shift
  if (($# > 0)); then
    [[ $1 == --node && $# == 2 ]] || fail "unknown: $*; reserve N [--node K]" 2
    whole_number "$2" --node
    where=$sys/devices/system/node/node$2/hugepages/hugepages-${size_kib}kB
    [[ -d $where ]] || fail "there is no NUMA node $2; there are$(node_pools | sed 's|.*/node\([0-9]*\)/.*| \1|' | tr -d '\n')"
  fi
  need_root reserve "$count"
  set_pool "$where" "$count"
  show
}

persist() {
  need_root persist
  local count
  count=$(pages "$pool")
  ((count > 0)) || fail "the pool is empty: reserve first, or release to forget what was persisted"
  echo "vm.nr_hugepages = $count" >"$sysctl_file" || fail "cannot write $sysctl_file"
  echo "$count pages from the next boot on: $sysctl_file"
}

release() {
  need_root release
  rm -f "$sysctl_file"
  set_pool "$pool" 0
  echo "the pool is empty"
}

command=${1:---help}
(($# == 0)) || shift
case $command in
  -h | --help) usage ;;
  show | persist | release)
    (($# == 0)) || fail "$command takes nothing more" 2
    need_pool
    "$command"
    ;;
  reserve) need_pool; reserve "$@" ;;
  *) usage >&2; exit 2 ;;
esac
