#!/usr/bin/env bash
# Train SmolLM2-135M-Instruct with Critique-GRPO on a machine without a GPU: install, build model and data, train,
# validate before and after, and print a table. Run it again to go on after an interruption.
#
#   bash scripts/quickstart.sh [Hydra overrides, such as actor_rollout_ref.actor.optim.lr=1e-5]
#
#   RUN_DIR            where model, data, checkpoints and results go (default: outputs/quickstart)
#   STEPS              training steps (default: 8); a finished run goes on when this is raised
#   VENV               virtual environment to make or use (default: .venv)
#   TORCH_CPU_SOURCE   see scripts/install_cpu.sh
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "${1:-}" != -h && "${1:-}" != --help ]] || { usage && exit; }
cd "$repo"
mkdir -p "${RUN_DIR:-outputs/quickstart}"
run="$(cd "${RUN_DIR:-outputs/quickstart}" && pwd)"
venv="${VENV:-$repo/.venv}"
steps="${STEPS:-8}"

say "1/4 packages"
bash scripts/install_cpu.sh "$venv"
# shellcheck source=scripts/cpu_env.sh
source scripts/cpu_env.sh
python="$venv/bin/python"

say "2/4 model and data"
building=""
trap '[[ -z "$building" ]] || kill "$building" 2>/dev/null' EXIT # bash would leave it running
if [[ ! -f "$run/data/val.parquet" ]]; then # at the same time as the model
  "$python" -m data_preprocess.arithmetic --local_save_dir "$run/data" --train_size 1024 --val_size 256 --operators + &
  building=$!
fi
"$python" -m data_preprocess.smollm2 --local_save_dir "$run/model"
[[ -z "$building" ]] || wait "$building"
building=""

say "3/4 training (the whole output goes to $run/train.log)"
latest="$run/checkpoints/latest_checkpointed_iteration.txt"
validate_first=true
if [[ -f "$latest" && "$(<"$latest")" -ge "$steps" ]]; then
  echo "training is finished; remove $run to start anew"
  "$python" -m recipe.critique_grpo.report "$run"
  exit
elif [[ -f "$latest" ]]; then
  echo "going on from the checkpoint of step $(<"$latest"); remove $run to start anew"
  validate_first=false
fi
# A file of its own for each start: verl's file logger begins its file anew, and the report joins them by step.
VERL_FILE_LOGGER_PATH="$run/metrics.$(date +%s).jsonl"
export VERL_FILE_LOGGER_PATH
CRITIQUE_GRPO_COMMAND="$(printf '%q ' "RUN_DIR=$run" "STEPS=$steps" "VENV=$venv" bash scripts/quickstart.sh "$@")"
export CRITIQUE_GRPO_COMMAND
status=0
"$python" -u -m recipe.critique_grpo.main_critique_grpo tier=cpu \
  data.train_files="'$run/data/train.parquet'" \
  data.val_files="'$run/data/val.parquet'" \
  data.train_batch_size=8 \
  data.max_prompt_length=72 \
  data.max_response_length=32 \
  data.seed=1 \
  critique_grpo.critique.templates="'$repo/data_preprocess/arithmetic_templates.yaml'" \
  critique_grpo.refinement.max_prompt_length=176 \
  critique_grpo.dump_dir="'$run/rollouts'" \
  actor_rollout_ref.model.path="'$run/model'" \
  actor_rollout_ref.actor.ppo_mini_batch_size=8 \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
  actor_rollout_ref.actor.optim.lr=2e-5 \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.temperature=0.8 \
  actor_rollout_ref.rollout.max_model_len=256 \
  trainer.logger='[console,file]' \
  trainer.experiment_name=quickstart \
  trainer.default_local_dir="'$run/checkpoints'" \
  trainer.total_training_steps=$steps \
  trainer.save_freq=4 \
  trainer.max_actor_ckpt_to_keep=1 \
  trainer.test_freq=$steps \
  trainer.val_before_train=$validate_first \
  hydra.run.dir="'$run/hydra'" \
  "$@" 2>&1 | tee -a "$run/train.log" | "$python" -m recipe.critique_grpo.report --follow || status=$?
if ((status != 0)); then
  echo "quickstart.sh: training stopped with an error; the last lines of $run/train.log:" >&2
  grep -vE '^\s*$' "$run/train.log" | tail -n 15 >&2
  echo "Run the same command again to go on from the last checkpoint." >&2
  exit "$status"
fi

say "4/4 results"
"$python" -m recipe.critique_grpo.report "$run"
