#!/usr/bin/env bash
# Measure what a training step costs against verl's own GRPO step on the same data, with each saving alone and with all
# of them, in alternating rounds of one start: on the quickstart's model, then on a small deep one with long responses.
#
#   bash scripts/bench_step.sh [Hydra overrides]
#
#   OUT     where model, data and results go (default: outputs/bench_step); finished runs are kept
#   ROUNDS  alternating rounds (default: 5; half an hour for each model on 2 cores)
#   CASES   "quickstart long" by default; family: what each option of the family costs against the default, on the study's
#           model that has practised critiques
#   STUDY   for family: the folder of "CRITICS=1 bash scripts/study.sh" (default: outputs/study_critics)
#   VENV    virtual environment to make or use (default: .venv)
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "${1:-}" != -h && "${1:-}" != --help ]] || { usage && exit; }
cpu_tier
out="$(realpath -ms "${OUT:-outputs/bench_step}")"
"$python" -m data_preprocess.smollm2 --local_save_dir "$out/smollm2"
[[ -f "$out/sums/train.parquet" ]] ||
  "$python" -m data_preprocess.arithmetic --local_save_dir "$out/sums" --train_size 64 --val_size 1 --operators +

bench() { # NAME MODEL overrides...
  "$python" -u -m recipe.critique_grpo.bench.step --model "$2" --data "$out/sums/train.parquet" --out "$out/$1" \
    --rounds "${ROUNDS:-5}" "${@:3}"
}

for case in ${CASES:-quickstart long}; do
  case "$case" in
    quickstart) # the settings of quickstart.sh
      bench quickstart "$out/smollm2" data.train_batch_size=8 data.max_prompt_length=72 data.max_response_length=32 \
        data.seed=1 critique_grpo.critique.templates="'$repo/data_preprocess/arithmetic_templates.yaml'" \
        critique_grpo.refinement.max_prompt_length=176 actor_rollout_ref.actor.ppo_mini_batch_size=8 \
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 actor_rollout_ref.rollout.temperature=0.8 \
        actor_rollout_ref.rollout.max_model_len=256 "$@"
      ;;
    long) # prompts are short against responses, as on a GPU
      "$python" -m data_preprocess.tiny_model --tokenizer_from "$out/smollm2" --local_save_dir "$out/deep" \
        --num_layers 8 --vocab_size 2048 --vocab_text README.md recipe/critique_grpo/README.md
      bench long "$out/deep" data.train_batch_size=8 data.max_prompt_length=160 data.max_response_length=512 \
        critique_grpo.refinement.max_prompt_length=768 actor_rollout_ref.actor.ppo_mini_batch_size=8 \
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 actor_rollout_ref.rollout.max_model_len=1400 \
        reward.custom_reward_function.path=pkg://recipe.critique_grpo.bench.reward "$@"
      ;;
    family)
      study="$(realpath -ms "${STUDY:-outputs/study_critics}")"
      [[ -f "$study/model/warm_start.json" ]] ||
        die "$study has no model. OUT=$study CRITICS=1 METHODS=GRPO SEEDS=0 STEPS=1 bash scripts/study.sh makes one"
      # One core for the server, as in study.sh.
      VLLM_CPU_OMP_THREADS_BIND="$(($(nproc) - 1))" bench family "$study/model" --designs family \
        --data "$study/data/train.parquet" data.train_batch_size=16 data.max_prompt_length=40 \
        data.max_response_length=20 critique_grpo.critique.templates="'$study/data/templates.yaml'" \
        critique_grpo.refinement.max_prompt_length=88 actor_rollout_ref.actor.ppo_mini_batch_size=16 \
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 actor_rollout_ref.rollout.max_num_seqs=256 \
        actor_rollout_ref.rollout.max_model_len=128 "$@"
      ;;
    *) die "CASES: there is no case $case" ;;
  esac
done
