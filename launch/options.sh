# shellcheck shell=bash
# Sourced by the scripts of this folder: their options, and running or (--dry-run, DRY_RUN=1) only printing commands.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
declare -A option=() # --NAME=VALUE before the --, without the dashes
train=()             # everything after it: the arguments of launch/train.py
dry_run=${DRY_RUN:-}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# The comment at the head of the script is its help.
usage() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
}

# read_options "NAME=DEFAULT NAME= ..." "$@": fills option and train. A name with nothing after = must be given; a
# default of - is the empty text.
read_options() {
  local known=$1 pair name names=''
  shift
  for pair in $known; do
    names+=" --${pair%%=*}"
    [[ ${pair#*=} == '' ]] || option[${pair%%=*}]=${pair#*=}
  done
  while (($#)); do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run) dry_run=1 ;;
      --) shift && train=("$@") && break ;;
      --*=*)
        name=${1%%=*} && name=${name#--}
        [[ " $known" == *" $name="* ]] ||
          die "--$name is no option of $(basename "$0"); they are$names. Arguments of launch/train.py come after --."
        option[$name]=${1#*=}
        ;;
      *) die "'$1' is not understood: give options as --NAME=VALUE, then --, then the arguments of launch/train.py." ;;
    esac
    shift
  done
  for pair in $known; do
    name=${pair%%=*}
    [[ -n ${option[$name]:-} ]] || die "--$name is missing; give --$name=VALUE (see --help)."
    [[ ${option[$name]} != - ]] || option[$name]=
  done
}

need_training() { # alone, or shared: every host must see the workdir under the same name
  local argument config='' workdir=''
  for argument in ${train[@]+"${train[@]}"}; do
    case $argument in
      --config=?*) config=${argument#*=} ;;
      --workdir=?*) workdir=${argument#*=} ;;
    esac
  done
  [[ -n $config ]] || die "--config is missing after --; add --config=configs/FILE.py."
  [[ -n $workdir ]] || die "--workdir is missing after --; add --workdir=FOLDER."
  case $1:$workdir in
    *:*://*) die "--workdir=$workdir is not a folder: mount the bucket on every host and name the mounted folder." ;;
    shared:/*) ;;
    shared:*) die "--workdir=$workdir must be an absolute path, of a folder that every host sees." ;;
  esac
}

need_number() { # NAME...
  local name
  for name; do
    [[ ${option[$name]} =~ ^[1-9][0-9]*$ ]] || die "--$name=${option[$name]} must be a whole number from 1."
  done
}

need_choice() { # NAME CHOICE...
  local name=$1
  shift
  [[ " $* " == *" ${option[$name]} "* ]] || die "--$name=${option[$name]} must be one of: $*."
}

need_hardware() { # PREFIX, such as tpu_
  local files=("$root"/launch/flags/"$1"*.sh) names=()
  local file
  for file in "${files[@]}"; do names+=("$(basename "$file" .sh)"); done
  need_choice hardware "${names[@]}"
}

need_program() { # NAME, HOW TO GET IT
  [[ -n $dry_run ]] || command -v "$1" >/dev/null || die "$1 is not on this machine: $2."
}

# Runs a command, or prints it as one line that a shell would read as the same command.
run() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@" | sed 's/ $/\n/'
  else
    "$@"
  fi
}
