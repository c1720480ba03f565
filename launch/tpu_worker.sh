#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on each worker of the slice: start HARDWARE PORT PYTHON ARGUMENTS..., logs, or stop.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"
cd "$root"
pid_file=$HOME/jaxslm.pid
log=$HOME/jaxslm.log
alive() { [[ -e $pid_file ]] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }
ask() { # what the VM is told about itself
  curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1" ||
    die "the metadata server does not tell '$1': is this a worker of a Cloud TPU slice?"
}

case ${1:-} in
  logs)
    echo "== $(hostname): $(if alive; then echo running; else echo ended; fi)"
    tail -n 20 "$log"
    exit
    ;;
  stop)
    if alive; then run kill -TERM "$(cat "$pid_file")"; else echo "$(hostname): nothing runs"; fi
    exit
    ;;
  start) ;;
  *) die "'${1:-}' must be start, logs or stop." ;;
esac
hardware=$2 port=$3 python=$4
shift 4
if alive; then die "a run is on already on $(hostname); end it first: launch/tpu_pod.sh --do=stop."; fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$python on $(hostname) is older than 3.11: install a newer one on all workers and name it by --python."
[[ -x .venv/bin/python ]] || run "$python" -m venv .venv
run .venv/bin/python -m pip install --quiet --editable '.[tpu]'

index=$(ask agent-worker-number)
hosts=()
endpoints=$(ask worker-network-endpoints)
IFS=, read -ra endpoints <<<"$endpoints" # addresses, or NAME:ID:ADDRESS each
for endpoint in "${endpoints[@]}"; do hosts+=("${endpoint##*:}"); done
place=(
  JAX_COORDINATOR_ADDRESS="${hosts[0]}:$port" JAX_NUM_PROCESSES="${#hosts[@]}" JAX_PROCESS_ID="$index"
  JAXSLM_HOSTS="$(IFS=, && echo "${hosts[*]}")"
)
command=(env "${place[@]}" bash launch/with_flags.sh "$hardware" .venv/bin/python launch/train.py "$@")
if [[ -n $dry_run ]]; then
  run "${command[@]}"
  exit
fi
nohup setsid "${command[@]}" >>"$log" 2>&1 </dev/null &
echo $! >"$pid_file"
echo "$(hostname): process $index of ${#hosts[@]} started, its output in $log"
