#!/usr/bin/env bash
# Submits a training job on GPU nodes to Slurm. The same command goes on after the job has ended, however it ended.
#
#   launch/slurm.sh --nodes=4 [--gpus=8] [--tasks=gpu] [--hardware=gpu_h100] [--time=24:00:00] [--grace=300]
#                   [--name=jaxslm] [--logs=logs] [--dry-run] -- --config=FILE.py --workdir=/shared/FOLDER ...
#
# --gpus   a node has
# --tasks  gpu: a process for each GPU; node: one for each node
# --grace  seconds before the time limit at which the job saves, ends and is queued again
# --logs   folder for the job's output
# Partition, account and the like: SBATCH_PARTITION=... SBATCH_ACCOUNT=..., which sbatch reads itself.
# PYTHON=... names another interpreter than `python`; JAX_COORDINATOR_PORT=... another port than one from the job's id.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"

read_options "nodes= gpus=8 tasks=gpu hardware=gpu_h100 time=24:00:00 grace=300 name=jaxslm logs=logs" "$@"
need_number nodes gpus grace
need_choice tasks gpu node
need_hardware gpu_
need_training shared
[[ ${option[time]} =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] ||
  die "--time=${option[time]} must be such as 24:00:00 or 7-0."
need_program sbatch "run this on a login node of the cluster"

per_node=${option[gpus]}
export JAXSLM_STOPPED_STATUS=75 # launch/slurm_job.sh queues the job again on it
if [[ ${option[tasks]} == node ]]; then
  per_node=1
  # or JAX gives each task of a Slurm job one GPU
  JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((option[gpus] - 1)))
  export JAX_LOCAL_DEVICE_IDS
  [[ -z $dry_run ]] || echo "export JAX_LOCAL_DEVICE_IDS=$JAX_LOCAL_DEVICE_IDS"
fi
[[ -z $dry_run ]] || echo "export JAXSLM_STOPPED_STATUS=$JAXSLM_STOPPED_STATUS"
run mkdir -p "$root/${option[logs]}"
# No --gpus-per-task: a task would see its GPU as number 0, and JAX asks for the number of the task.
run sbatch --job-name="${option[name]}" --nodes="${option[nodes]}" --ntasks-per-node="$per_node" \
  --gres="gpu:${option[gpus]}" --exclusive --time="${option[time]}" --requeue --open-mode=append \
  --signal="B:USR1@${option[grace]}" --chdir="$root" --output="${option[logs]}/%x-%j.txt" --export=ALL \
  "$root/launch/slurm_job.sh" "${option[hardware]}" "${train[@]}"
if [[ -n $dry_run ]]; then
  echo "# on the first node of the job:"
  DRY_RUN=1 bash "$root/launch/slurm_job.sh" "${option[hardware]}" "${train[@]}"
fi
