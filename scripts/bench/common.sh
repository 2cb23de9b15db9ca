# Sourced by the benchmarks of this directory, after the comment that describes each: what they have in common.

# benchmark "OPTIONS" TARGET... -- WORD...: installs what is missing, builds the targets and runs the Python program of the
# script's name with the words. An option that is not among OPTIONS is refused before anything is built.
benchmark() {
  local name options=" $1 " word targets=()
  name=$(basename "$0" .sh)
  shift
  while [[ $1 != -- ]]; do
    targets+=("$1")
    shift
  done
  shift
  for word in "$@"; do
    case "$word" in
      --help | -h) usage; exit 0 ;;
      -*) [[ $options == *" ${word%%=*} "* ]] || { echo "$name.sh has no option $word" >&2; usage >&2; exit 2; } ;;
    esac
  done
  scripts/install-deps.sh --bench >&2
  cmake --preset release >/dev/null
  cmake --build --preset release --target "${targets[@]}" >&2
  exec python3 "scripts/bench/$name.py" --programs build/release/bin "$@"
}

# The comment at the head of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "scripts/bench/$(basename "$0")"; }
