#!/usr/bin/env bash
# Trains on the GPUs of this machine: one process, all GPUs. The same command goes on after a stop.
#
#   launch/gpu_node.sh [--hardware=gpu_h100] [--gpus=0,1,2,3] [--dry-run] -- --config=FILE.py --workdir=FOLDER ...
#
# --gpus: which ones; default: all. PYTHON=... names another interpreter than `python`.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"

read_options "hardware=gpu_h100 gpus=-" "$@"
need_hardware gpu_
need_training alone
[[ ${option[gpus]} =~ ^([0-9]+(,[0-9]+)*)?$ ]] || die "--gpus=${option[gpus]} must be numbers such as 0,1,2,3."
need_program nvidia-smi "install the NVIDIA driver, or see launch/README.md for TPUs"

visible=()
[[ -z ${option[gpus]} ]] || visible=("CUDA_VISIBLE_DEVICES=${option[gpus]}")
[[ -n $dry_run ]] || cd "$root"
run env ${visible[@]+"${visible[@]}"} bash "$root/launch/with_flags.sh" "${option[hardware]}" \
  "${PYTHON:-python}" launch/train.py "${train[@]}"
