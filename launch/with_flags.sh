#!/usr/bin/env bash
# Runs a command with the compiler flags of the hardware: bash launch/with_flags.sh HARDWARE COMMAND...
# HARDWARE is a file of launch/flags without .sh. DRY_RUN=1 prints the flags and the command.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/options.sh
source "$here/options.sh"

option[hardware]=${1:?"give HARDWARE, then the command"}
need_hardware ''
shift
(($#)) || die "give the command after the hardware."
# shellcheck source=/dev/null
source "$here/flags/${option[hardware]}.sh"
cd "$root"
if [[ -n $dry_run ]]; then
  printf 'export LIBTPU_INIT_ARGS=%q XLA_FLAGS=%q\n' "${LIBTPU_INIT_ARGS:-}" "${XLA_FLAGS:-}"
  run "$@"
else
  exec "$@"
fi
