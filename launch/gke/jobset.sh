#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster with JobSet. After a preemption the JobSet starts all pods again by itself; the
# same command does, once it has ended.
#
#   launch/gke/jobset.sh --name=RUN --image=IMAGE --topology=8x8 --volume=bucket:BUCKET [--hardware=tpu_v5e]
#       [--slices=1] [...] [--dry-run] -- --config=FILE.py --workdir=/mnt/run/FOLDER ...
#
# All options: python launch/gke/render.py --help. --dry-run prints the YAML and the commands.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"

given=()
name=''
for word; do # the options are render.py's, but for these
  case $word in
    -h | --help) usage && exec "${PYTHON:-python3}" "$root/launch/gke/render.py" --help ;;
    --) break ;;
    --dry-run) dry_run=1 && shift && continue ;;
    --name=*) name=${word#*=} ;;
  esac
  given+=("$word") && shift
done
yaml=$("${PYTHON:-python3}" "$root/launch/gke/render.py" ${given[@]+"${given[@]}"} "$@")
need_program kubectl "install it, then gcloud container clusters get-credentials CLUSTER"

if [[ -n $dry_run ]]; then
  printf '%s\n' "$yaml"
  echo "# then, after deleting a JobSet $name that has ended:"
  run kubectl create -f -
  exit
fi
if kubectl get jobset "$name" >/dev/null 2>&1; then
  state=$(kubectl get jobset "$name" -o 'jsonpath={.status.terminalState}')
  [[ -n $state ]] || die "the JobSet $name is there and has not ended; end it first: kubectl delete jobset $name."
  kubectl delete jobset "$name" --wait
fi
kubectl create -f - <<<"$yaml"
echo "logs: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=$name --prefix --max-log-requests=64"
