# bash completion of kelpctl and kelpd.

_kelpctl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local commands="read stat trace health stats ping capabilities bench loadgen volumes clients peers devices config doctor reload disable enable drain"
  local everywhere="--run-dir --json --help --version" command="" word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ " $commands " == *" $word "* ]]; then
      command=$word
      break
    fi
  done
  COMPREPLY=()
  case $previous in
    --run-dir | --volume-dir) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --output | -o | --fids) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --offset | --size | --timeout | --token | --volume-server | --depth | --duration | --count) return ;;
  esac
  local options=$everywhere
  case $command in
    "") options="$everywhere $commands" ;;
    read) options="$everywhere --offset --size --output --timeout --token --volume-server" ;;
    stat | trace) options="$everywhere --timeout" ;;
    ping) options="$everywhere --count --timeout" ;;
    bench) options="$everywhere --count --size --timeout" ;;
    stats) options="$everywhere --watch" ;;
    loadgen) options="$everywhere --fids --depth --size --duration --count --timeout" ;;
    doctor) options="$everywhere --volume-dir" ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -F _kelpctl kelpctl

_kelpd() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  case $previous in
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --volume-dir | --idx-dir | --run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W "debug info warning error" -- "$current"); return ;;
    --cpus | --master | --sidecar) return ;;
  esac
  local options="--config --check --volume-dir --volume-server --idx-dir --master --sidecar --run-dir --cpus --log-level --help --version"
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -F _kelpd kelpd
