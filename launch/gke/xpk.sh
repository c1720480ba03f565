#!/usr/bin/env bash
# Trains on TPU slices of a cluster that XPK made (xpk cluster create). The same command goes on once the run has ended.
#
#   launch/gke/xpk.sh --cluster=CLUSTER --zone=ZONE --project=PROJECT --name=RUN --image=IMAGE --type=v5litepod-64
#       [--hardware=tpu_v5e] [--slices=1] [--restarts=100] [--grace=120] [--dry-run]
#       -- --config=FILE.py --workdir=/mounted/FOLDER ...
#
# --image  built from launch/gke/Dockerfile
# --type   of a slice, as XPK names it: v5litepod-CHIPS, v5p-CORES (two a chip), v6e-CHIPS
# The workdir must lie in a storage of the cluster: xpk storage attach ... --auto-mount=true.
set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"

read_options "cluster= zone= project= name= image= type= hardware=tpu_v5e slices=1 restarts=100 grace=120" "$@"
need_number slices restarts grace
need_hardware tpu_
need_training shared
case ${option[hardware]}:${option[type]} in
  tpu_v5e:v5litepod-[1-9]* | tpu_v5p:v5p-[1-9]* | tpu_v6e:v6e-[1-9]*) ;;
  *)
    die "--type=${option[type]} is no slice of --hardware=${option[hardware]}: give v5litepod-N, v5p-N or v6e-N."
    ;;
esac
need_program xpk "install it by pip install xpk"

target=(--cluster="${option[cluster]}" --zone="${option[zone]}" --project="${option[project]}")
words=$(printf ' %q' launch/with_flags.sh "${option[hardware]}" python launch/train.py "${train[@]}")
# XPK refuses the name of an older workload, ended or not, and by itself restarts on status 42 only. 75: stopped by a
# signal and saved; 134: JAX noticed that another process is lost; 137, 143: killed.
run xpk workload delete "${target[@]}" --workload="${option[name]}" --filter-by-status=FINISHED --force
run xpk workload create "${target[@]}" --workload="${option[name]}" --tpu-type="${option[type]}" \
  --num-slices="${option[slices]}" --docker-image="${option[image]}" --max-restarts="${option[restarts]}" \
  --restart-on-exit-codes=1,75,134,137,143 --termination-grace-period-seconds="${option[grace]}" \
  --command="cd /jaxslm && JAXSLM_STOPPED_STATUS=75 bash$words"
