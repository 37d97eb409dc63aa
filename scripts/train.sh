#!/usr/bin/env bash
# Train a model with Critique-GRPO: checks files and settings, then runs verl's training, with a checkpoint every 50
# steps and a validation every 10. The same command goes on from the last checkpoint after an interruption.
#
#   bash scripts/train.sh MODEL=models/my_model TRAIN=train.parquet VAL="aime24.parquet math500.parquet" [--preflight] [Hydra overrides]
#
# With --preflight nothing is trained: everything that can be checked before is, and each check says what it found.
# Relative paths in Hydra overrides are relative to the repository. Arguments in capitals may also be environment
# variables:
#   MODEL    folder or Hugging Face hub id
#   TRAIN    parquet files to train on, separated by spaces
#   VAL      parquet files to validate on
#   OUT      folder for checkpoints, metrics, train.log and (not with PRESET=grpo or dr_grpo) rollouts
#            (default: outputs/train/<last part of MODEL>-<PRESET>)
#   PRESET   default, paper, released, grpo; or a baseline: dr_grpo, luffy, sft, raft, refinement_ft, citl_ft;
#            or of the family (docs/family.md): icrl, ditto, recrit
#            (default: default)
#   TIER     cpu or gpu (default: gpu if nvidia-smi shows one)
#   GPUS     GPUs of each machine to use (default: all; cpu: 1)
#   PYTHON   interpreter with this repository installed (default: .venv-gpu/bin/python; cpu: .venv/bin/python)
#   ATTENTION   sdpa where there is no flash-attn (environment variable)
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
set -- "${@/#--preflight/preflight=true}"
parse "MODEL TRAIN VAL OUT PRESET TIER GPUS PYTHON" "$@"
preflight="$(printf '%s\n' ${overrides[@]+"${overrides[@]}"} | grep -cx 'preflight=[Tt]rue' || true)"
[[ -n "${MODEL:-}" && -n "${TRAIN:-}" && -n "${VAL:-}" ]] || die "MODEL, TRAIN and VAL are needed; --help explains"
choose_machine
find_model
files="$(absolute "$TRAIN")" # each by itself, so that a missing file ends the script
mapfile -t TRAIN <<<"$files"
files="$(absolute "$VAL")"
mapfile -t VAL <<<"$files"
train="$(listed "${TRAIN[@]}")" val="$(listed "${VAL[@]}")"
preset="${PRESET:-default}"
out="$(realpath -ms "${OUT:-$repo/outputs/train/${MODEL##*/}-$preset}")"
mkdir -p "$out"

# verl goes on from any checkpoint that it finds: not from one of another run.
settings="$(printf '%s\n' "MODEL=$MODEL" "TRAIN=$train" "VAL=$val" "PRESET=$preset" "TIER=$TIER" \
  ${overrides[@]+"${overrides[@]}"} | grep -v -e '^trainer\.total_' -e '^preflight=')"
latest="$out/checkpoints/latest_checkpointed_iteration.txt"
steps="$(compgen -G "$out/rollouts/*.jsonl" || find "$out" -maxdepth 1 -name 'metrics.*.jsonl' -size +0)"
if [[ -f "$out/settings" && (-f "$latest" || -n "$steps") ]]; then
  changed="$(diff "$out/settings" - <<<"$settings" | grep '^[<>]' || true)"
  [[ -z "$changed" ]] || die "$out holds steps of a run with other settings (< then, > now):
$changed
Name another OUT, or remove that one; or remove $out/settings to go on there all the same."
fi
if [[ -f "$latest" ]]; then
  echo "going on from the checkpoint of step $(<"$latest") in $out"
fi
((preflight)) || printf '%s\n' "$settings" >"$out/settings"

again=("MODEL=$MODEL" "TRAIN=${TRAIN[*]}" "VAL=${VAL[*]}" "OUT=$out" "PRESET=$preset" "TIER=$TIER" "GPUS=$GPUS")
[[ -z "${PYTHON:-}" ]] || again+=("PYTHON=$python")
enter_repo
[[ -z "${RAY_ADDRESS:-}" ]] || agree_on_token "$RAY_ADDRESS"
choose_attention actor_rollout_ref.model
# Loggers run in the task runner, which may be a Ray worker on another node. Metrics get a file of their own for each start: verl's file logger
# begins its file anew.
environment=ray_kwargs.ray_init.runtime_env.env_vars
# What to type to go on, for the last lines of a run that fails. slurm.sh has said it already.
again=("${RAY_ADDRESS:+RAY_ADDRESS=$RAY_ADDRESS }${ATTENTION:+ATTENTION=$ATTENTION }bash scripts/train.sh"
  "$(printf '%q ' "${again[@]}" ${overrides[@]+"${overrides[@]}"})")
export CRITIQUE_GRPO_COMMAND="${CRITIQUE_GRPO_COMMAND:-${again[*]}}"
exec "$python" -u -m recipe.critique_grpo.main_critique_grpo preset="$preset" tier="$TIER" \
  data.train_files="$train" \
  data.val_files="$val" \
  actor_rollout_ref.model.path="'$MODEL'" \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  ${attention[@]+"${attention[@]}"} \
  critique_grpo.dump_dir="'$out/rollouts'" \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.default_local_dir="'$out/checkpoints'" \
  trainer.save_freq=50 \
  trainer.test_freq=10 \
  trainer.experiment_name="'${out##*/}'" \
  trainer.logger='[console,file]' \
  "+$environment.VERL_FILE_LOGGER_PATH='$out/metrics.$(date +%s).jsonl'" \
  "+$environment.TENSORBOARD_DIR='$out/tensorboard'" \
  hydra.run.dir="'$out/$( ((preflight)) && echo preflight || echo hydra)'" \
  ${overrides[@]+"${overrides[@]}"} > >(tee -a "$out/$( ((preflight)) && echo preflight || echo train).log") 2>&1
