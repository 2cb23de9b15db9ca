#!/usr/bin/env bash
# Runs a command as root in a small virtual machine whose kernel has Soft-RoCE, and exits with its status.
#
#   scripts/soft-roce/run-in-guest.sh [--cpus N] [--memory MIB] [--limit SECONDS] [--out DIR] [--pin] -- COMMAND...
#
# The guest is QEMU without KVM and Debian's own kernel. It sees the file system of this machine, read-only under a layer
# that is thrown away, so what was built here runs there as it is; what it writes to /out lands in DIR. It has an RDMA device,
# rxe0, with the address 10.9.0.1. What its kernel warns of is in DIR/dmesg; a WARNING, BUG or Oops among it makes the status 70.
# With --pin each of its CPUs has one of this machine's: two that spin on the same one take turns of 4 ms, which is no measurement.
#
# Needs root, and apt for the kernel (100 MB, kept in $KELP_GUEST_CACHE, else ~/.cache/kelp-guest). Exit codes of its own:
# 77 the guest cannot be had here, 125 it ended without a status.
set -euo pipefail

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }

cpus=2 memory_mib=4096 limit_s=300 out= pin=
while (($# > 0)); do
  case "$1" in
    --cpus) cpus=${2:?--cpus needs a number}; shift 2 ;;
    --memory) memory_mib=${2:?--memory needs a number}; shift 2 ;;
    --limit) limit_s=${2:?--limit needs a number}; shift 2 ;;
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    --pin) pin=yes; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run-in-guest.sh: no such option: $1 (the command comes after --)" >&2; exit 64 ;;
  esac
done
(($# > 0)) || { usage >&2; exit 64; }

here=$(cd "$(dirname "$0")" && pwd)
cache=${KELP_GUEST_CACHE:-$HOME/.cache/kelp-guest}
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$(realpath -m "${out:-$work/out}")
mkdir -p "$cache" "$out"

unavailable() {
  echo "skipped: no Soft-RoCE guest: $1" >&2
  exit 77
}

install_tools() {
  local needed=(qemu-system-x86 busybox-static cpio kmod iproute2 procps ibverbs-providers) missing=() package
  for package in "${needed[@]}"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  echo "installing ${missing[*]}" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } \
    >"$work/apt.log" 2>&1 || unavailable "cannot install ${missing[*]}: $(tail -n 1 "$work/apt.log")"
}

# The kernel that linux-image-amd64 stands for, unpacked and not installed.
fetch_kernel() {
  [[ -d $cache/kernel ]] && return
  local package
  package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends:/ {print $2; exit}')
  [[ -n $package ]] || unavailable "apt knows no linux-image-amd64"
  echo "fetching $package" >&2
  (cd "$work" && apt-get -o APT::Sandbox::User=root download "$package" && dpkg-deb -x "$package"_*.deb kernel) \
    >"$work/apt.log" 2>&1 || unavailable "cannot fetch $package: $(tail -n 1 "$work/apt.log")"
  depmod -b "$work/kernel" "$(ls "$work/kernel/lib/modules")"
  # Whole or not at all, also where two do this at once.
  mv -T "$work/kernel" "$cache/kernel" 2>/dev/null || [[ -d $cache/kernel ]]
}

# Its first file system: busybox, and the modules by which it comes to ours.
make_initrd() {
  local root=$work/root number=100 module file
  mkdir -p "$root/bin" "$root/mods"
  cp "$(command -v busybox)" "$root/bin/busybox"
  install -m 755 "$here/guest-init" "$root/init"
  for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$cache/kernel" -S "$release" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$work/modules"
  while read -r file; do
    cp "$file" "$root/mods/$((number++))-${file##*/}"
  done <"$work/modules"
  (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd.gz"
}

# Each virtual CPU is a thread of QEMU's, there once its machine is.
pin_cpus() {
  local here_cpus number=0 task name
  mapfile -t here_cpus < <(taskset --cpu-list --pid $$ | sed 's/.*: //' | tr ',' '\n' |
    awk -F- '{for (cpu = $1; cpu <= ($2 == "" ? $1 : $2); ++cpu) print cpu}')
  while ((number < cpus)); do
    sleep 0.1
    [[ -s $work/pid ]] || continue
    for task in "/proc/$(<"$work/pid")/task"/*; do
      { read -r name <"$task/comm"; } 2>/dev/null || continue
      [[ $name == "CPU $number/"* ]] || continue
      taskset --cpu-list --pid "${here_cpus[number++ % ${#here_cpus[@]}]}" "${task##*/}" >/dev/null
      break
    done
  done
}

((EUID == 0)) || unavailable "not root"
command -v apt-get >/dev/null || unavailable "no apt"
install_tools
fetch_kernel
release=$(ls "$cache/kernel/lib/modules")
make_initrd
printf 'cd %q || exit 1\n%s\n' "$PWD" "$(printf '%q ' "$@")" >"$out/.command"
rm -f "$out/.status" "$out/dmesg"

if [[ -n $pin ]]; then
  pin_cpus &
  pinning=$!
  trap 'kill "$pinning" 2>/dev/null || true; rm -rf "$work"' EXIT
fi
timeout "$limit_s" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m "$memory_mib" -smp "$cpus" \
  -name guest,debug-threads=on -pidfile "$work/pid" \
  -kernel "$cache/kernel/boot/vmlinuz-$release" -initrd "$work/initrd.gz" \
  -append "console=ttyS0 panic=-1 quiet modules=$cache/kernel/lib/modules/$release" \
  -nographic -no-reboot -vga none -net none \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
  -virtfs "local,path=$out,mount_tag=out,security_model=none,multidevs=remap" \
  </dev/null | sed -u -e 's/\r$//' -e '1,/^guest: ready$/d' -e '/^\[ *[0-9.]*\] \(sysrq\|reboot\): Power/d' || true

if [[ ! -f $out/.status ]]; then
  echo "the guest ended without a status: it took longer than $limit_s s, or crashed" >&2
  exit 125
fi
if grep -E 'WARNING|BUG|Oops' "$out/dmesg" >&2; then
  echo "the guest's kernel complained" >&2
  exit 70
fi
exit "$(<"$out/.status")"
