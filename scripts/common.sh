# What the scripts share; sourced after `set -euo pipefail`.
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; } # the comment at the head of the script
say() { printf '\n[%(%H:%M:%S)T] %s\n' -1 "$*"; }
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Goes to the repository, makes the environment of the CPU tier if need be, and sets python.
cpu_tier() {
  cd "$repo"
  local venv="${VENV:-$repo/.venv}"
  bash scripts/install_cpu.sh "$venv"
  # shellcheck source=scripts/cpu_env.sh
  source scripts/cpu_env.sh
  python="$venv/bin/python"
}

# parse "NAME NAME ..." ARGUMENTS: sets the variables that are given as NAME=value, and `overrides` for Hydra.
overrides=()
parse() {
  local names=" $1 " argument
  shift
  for argument in "$@"; do
    case "$argument" in
      -h | --help) usage && exit ;;
      [A-Z]*=*)
        [[ "$names" == *" ${argument%%=*} "* ]] ||
          die "unknown argument ${argument%%=*}; bash $0 --help lists them"
        printf -v "${argument%%=*}" '%s' "${argument#*=}"
        ;;
      *=* | '~'*) overrides+=("$argument") ;;
      *) die "$argument is neither NAME=value nor a Hydra override; values with spaces need quotes" ;;
    esac
  done
}

# Sets TIER (cpu or gpu), GPUS and python, where the user does not.
choose_machine() {
  local visible=0
  ! command -v nvidia-smi >/dev/null || visible="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')" || true
  if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]] && ((visible > 0)); then # the user's choice among them
    local chosen="${CUDA_VISIBLE_DEVICES//[^,]/}"
    visible=$((${#chosen} + 1))
    [[ -n "$CUDA_VISIBLE_DEVICES" && "$CUDA_VISIBLE_DEVICES" != -1 ]] || visible=0
  fi
  if [[ -z "${TIER:-}" ]]; then
    TIER=cpu
    ((visible == 0)) || TIER=gpu
  fi
  case "$TIER" in
    cpu) GPUS="${GPUS:-1}" python="${PYTHON:-$repo/.venv/bin/python}" ;;
    gpu)
      GPUS="${GPUS:-$visible}" python="${PYTHON:-$repo/.venv-gpu/bin/python}"
      [[ -n "${PYTHON:-}" || -x "$python" ]] || python=python # an environment of the user's own
      ;;
    *) die "TIER is $TIER; choose cpu or gpu" ;;
  esac
  [[ "$GPUS" != 0 ]] || die "TIER is gpu and nvidia-smi shows no GPU; mend the driver, or use TIER=cpu"
  whole GPUS "$GPUS"
  find_python
}

# Makes `python` absolute, so that it is found after a change of folder.
find_python() {
  command -v "$python" >/dev/null ||
    die "there is no $python; run scripts/install_gpu.sh, or scripts/install_cpu.sh without a GPU, or name an interpreter with PYTHON=..."
  python="$(realpath -s "$(command -v "$python")")"
}

whole() { [[ "$2" =~ ^[1-9][0-9]*$ ]] || die "$1 is $2; use a whole number from 1 on"; }

# Makes MODEL absolute if it is a folder; anything else that looks like one is refused.
find_model() {
  if [[ -d "$MODEL" ]]; then
    MODEL="$(realpath -s "$MODEL")"
  elif [[ "$MODEL" == [./~]* || "$MODEL" == */*/* ]]; then
    die "there is no folder $MODEL (MODEL)"
  fi
}

# absolute "FILE FILE ...": their paths, one a line. What is not there may be in the repository.
absolute() {
  local file
  [[ ! -f "$1" ]] || { realpath -s "$1" && return; } # one whose name has a space
  for file in $1; do
    if [[ -f "$file" ]]; then
      realpath -s "$file"
    elif [[ "$file" != /* && -f "$repo/$file" ]]; then
      printf '%s\n' "$repo/$file"
    else
      die "there is no file $file"
    fi
  done
}

# listed VALUE...: as a Hydra list.
listed() {
  local joined
  joined="$(printf ",'%s'" "$@")"
  printf '[%s]' "${joined#,}"
}

# Where there is no flash-attn: sets `attention`, overrides for PyTorch's own, of the part of the configuration that is
# named (ATTENTION=sdpa).
choose_attention() { # prefix
  attention=()
  case "${ATTENTION:-flash}" in
    flash) ;;
    sdpa) attention=("+$1.override_config.attn_implementation=sdpa" "$1.use_remove_padding=false") ;;
    *) die "ATTENTION is $ATTENTION; choose flash or sdpa" ;;
  esac
  [[ "$TIER" == gpu ]] || attention=() # the CPU tier has it set
}

# A cluster whose head has a token in ~/.ray asks for it, and Ray never sends it to an address that it is told.
agree_on_token() { # the address, if it is not this machine that starts the cluster
  local token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
  [[ -z "${RAY_AUTH_MODE:-}" && "${1:-}" != local ]] || return 0
  [[ -n "${RAY_AUTH_TOKEN:-}" || -s "$token" ]] || return 0
  # One that somebody has started without would not understand it.
  [[ -z "${1:-}" ]] || ! RAY_AUTH_MODE=disabled timeout 20 "${python%/*}/ray" health-check --address "$1" &>/dev/null || return 0
  export RAY_AUTH_MODE=token
}

# To the repository, where every run starts, with the environment of the tier.
enter_repo() {
  cd "$repo"
  # SLURM sets both, and verl refuses that.
  [[ -z "${CUDA_VISIBLE_DEVICES+set}" ]] || unset ROCR_VISIBLE_DEVICES
  if [[ "$TIER" == cpu ]]; then
    # shellcheck source=scripts/cpu_env.sh
    source scripts/cpu_env.sh
    [[ -d "${MODEL:-.}" ]] || export HF_HUB_OFFLINE=0 # a hub id may have to be downloaded
  fi
}
