#!/usr/bin/env bash
# What launch/slurm.sh submits; runs on the first node of the job: HARDWARE, then the arguments of launch/train.py.
# A signal (preemption, or the time limit coming near) makes all processes save and end, and the job is queued again.
set -euo pipefail
hardware=$1
shift
# Processes that a dead one left behind end too, rather than wait for its heartbeat.
step=(srun --kill-on-bad-exit=1 --label bash launch/with_flags.sh "$hardware" "${PYTHON:-python}" launch/train.py "$@")
if [[ -n ${DRY_RUN:-} ]]; then
  printf '%q ' "${step[@]}" | sed 's/ $/\n/'
  exit 0
fi

# shellcheck disable=SC2317 # called by the trap
stop() {
  echo "job $SLURM_JOB_ID is asked to stop; its processes save"
  scancel --signal=TERM "$SLURM_JOB_ID" || true # its steps, not this script
}
trap stop USR1 TERM

"${step[@]}" &
running=$!
code=0
wait "$running" || code=$?
while kill -0 "$running" 2>/dev/null; do # a signal ended the wait, not the step
  code=0
  wait "$running" || code=$?
done
if ((code == 75)); then # JAXSLM_STOPPED_STATUS: saved, steps left to make
  scontrol requeue "$SLURM_JOB_ID" || echo "job $SLURM_JOB_ID is not queued again; submit it by the same command"
fi
exit "$code"
