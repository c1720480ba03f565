#!/usr/bin/env bash
# Trains on a Cloud TPU VM slice, from any machine with gcloud: copies this checkout to all workers, installs it, and
# starts one process on each. The same command goes on after a preemption.
#
#   launch/tpu_pod.sh --name=TPU --zone=ZONE [--project=PROJECT] [--hardware=tpu_v5e] [--python=python3] [--port=8476]
#                     [--do=start|logs|stop] [--dry-run] -- --config=FILE.py --workdir=/mounted/FOLDER ...
#
# --do    start (default); logs: the last lines of each worker; stop: save and end
# --port  of worker 0, at which the others join; Google's default firewall opens 8476 between TPU VMs
# One slice only: for several, see launch/gke.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"

read_options "name= zone= project=- hardware=tpu_v5e python=python3 port=8476 do=start" "$@"
need_choice 'do' start logs stop
need_number port
need_hardware tpu_
need_program gcloud "install the Google Cloud CLI and run gcloud auth login"

where=(--zone="${option[zone]}" --worker=all)
[[ -z ${option[project]} ]] || where+=(--project="${option[project]}")
on_all() { # COMMAND LINE
  run gcloud compute tpus tpu-vm ssh "${option[name]}" "${where[@]}" --command="$1"
}

if [[ ${option[do]} != start ]]; then
  on_all "bash jaxslm/launch/tpu_worker.sh ${option[do]}"
  exit
fi
need_training shared
git -C "$root" ls-files >/dev/null || die "$root is no git checkout; clone the repository, it is copied as git lists it."
archive=${TMPDIR:-/tmp}/jaxslm-${option[name]}.tar.gz
if [[ -n $dry_run ]]; then
  printf 'git -C %q ls-files -coz --exclude-standard | ' "$root"
  printf 'tar -C %q --null -T - --ignore-failed-read -czf %q\n' "$root" "$archive"
else
  git -C "$root" ls-files -coz --exclude-standard | tar -C "$root" --null -T - --ignore-failed-read -czf "$archive"
fi
run gcloud compute tpus tpu-vm scp "$archive" "${option[name]}:jaxslm.tar.gz" "${where[@]}"
words=$(printf ' %q' "${option[hardware]}" "${option[port]}" "${option[python]}" "${train[@]}")
on_all "mkdir -p jaxslm && tar -xzf jaxslm.tar.gz -C jaxslm && bash jaxslm/launch/tpu_worker.sh start$words"
