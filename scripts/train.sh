#!/usr/bin/env bash
# Train a model with Critique-GRPO: checks files and settings, then runs verl's training, with a checkpoint every 50
# steps and a validation every 10. The same command goes on from the last checkpoint after an interruption.
#
#   bash scripts/train.sh MODEL=models/my_model TRAIN=train.parquet VAL="aime24.parquet math500.parquet" [Hydra overrides]
#
# Arguments in capitals may also be environment variables:
#   MODEL    folder or Hugging Face hub id
#   TRAIN    parquet files to train on, separated by spaces
#   VAL      parquet files to validate on
#   OUT      folder for checkpoints, rollouts and metrics (default: outputs/train/<last part of MODEL>)
#   PRESET   default, paper, released or grpo (default: default)
#   TIER     cpu or gpu (default: gpu if there is nvidia-smi)
#   GPUS     GPUs of each machine to use (default: all; cpu: 1)
#   PYTHON   interpreter with this repository installed (default: python; cpu: .venv/bin/python)
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
die() {
  echo "train.sh: $*" >&2
  exit 1
}

overrides=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" && exit ;;
    MODEL=* | TRAIN=* | VAL=* | OUT=* | PRESET=* | TIER=* | GPUS=* | PYTHON=*)
      printf -v "${argument%%=*}" '%s' "${argument#*=}" ;;
    [A-Z]*=*) die "unknown argument ${argument%%=*}; bash scripts/train.sh --help lists them" ;;
    *=* | '~'*) overrides+=("$argument") ;;
    *) die "$argument is neither NAME=value nor a Hydra override; values with spaces need quotes" ;;
  esac
done
[[ -n "${MODEL:-}" && -n "${TRAIN:-}" && -n "${VAL:-}" ]] || die "MODEL, TRAIN and VAL are needed; --help explains"
if [[ -z "${TIER:-}" ]]; then
  TIER=cpu
  command -v nvidia-smi >/dev/null && TIER=gpu
fi
case "$TIER" in
  cpu) gpus="${GPUS:-1}" python="${PYTHON:-$repo/.venv/bin/python}" ;;
  gpu) gpus="${GPUS:-$(nvidia-smi -L | wc -l)}" python="${PYTHON:-python}" ;;
  *) die "TIER is $TIER; choose cpu or gpu" ;;
esac
command -v "$python" >/dev/null ||
  die "there is no $python; run scripts/install_cpu.sh (without a GPU), or name an interpreter with PYTHON=..."
python="$(realpath -s "$(command -v "$python")")"

# The run itself starts in the repository, so whatever the user names becomes absolute first.
listed() { # parquet files -> a Hydra list
  local file files=""
  for file in $1; do
    [[ -f "$file" ]] || die "there is no file $file"
    files+=",'$(realpath -s "$file")'"
  done
  printf '[%s]' "${files#,}"
}
train="$(listed "$TRAIN")"
val="$(listed "$VAL")"
[[ ! -d "$MODEL" ]] || MODEL="$(realpath -s "$MODEL")"
out="$(realpath -ms "${OUT:-$repo/outputs/train/${MODEL##*/}}")"
mkdir -p "$out"
cd "$repo"
if [[ "$TIER" == cpu ]]; then
  # shellcheck source=scripts/cpu_env.sh
  source scripts/cpu_env.sh
fi
# A file of its own for each start: verl's file logger begins its file anew.
VERL_FILE_LOGGER_PATH="$out/metrics.$(date +%s).jsonl"
export VERL_FILE_LOGGER_PATH
exec "$python" -u -m recipe.critique_grpo.main_critique_grpo preset="${PRESET:-default}" tier="$TIER" \
  data.train_files="$train" \
  data.val_files="$val" \
  actor_rollout_ref.model.path="'$MODEL'" \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  critique_grpo.dump_dir="'$out/rollouts'" \
  trainer.n_gpus_per_node="$gpus" \
  trainer.default_local_dir="'$out/checkpoints'" \
  trainer.save_freq=50 \
  trainer.test_freq=10 \
  trainer.experiment_name="'${out##*/}'" \
  trainer.logger='[console,file]' \
  hydra.run.dir="'$out/hydra'" \
  ${overrides[@]+"${overrides[@]}"}
