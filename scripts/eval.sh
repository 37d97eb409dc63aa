#!/usr/bin/env bash
# Evaluate a Hugging Face checkpoint on benchmarks with verl's own validation: greedy, and N samples a problem
# (temperature 0.6, top-p 0.95). Writes results.json, results.md, passk.png and results.html. Run it again to go on after an
# interruption: what is finished is not generated again.
#
#   bash scripts/eval.sh MODEL=models/my_model BENCHES="aime24 amc23 math500" N=8 [Hydra overrides]
#
# Relative paths in Hydra overrides are relative to the repository. Arguments in capitals may also be environment
# variables:
#   MODEL          folder or Hugging Face hub id
#   BENCHES        parquet files, or names of files in BENCH_DIR, separated by spaces or commas
#   N              samples a problem (default: 1, greedy only)
#   OUT            folder for dumps, logs and results (default: outputs/eval/<last part of MODEL>)
#   BENCH_DIR      where benchmark names are looked up (default: data/benchmarks)
#   TIER           cpu or gpu (default: gpu if nvidia-smi shows one)
#   MAX_PROMPT     tokens a prompt may have; a longer one is refused (default: 2048; cpu: 1024)
#   MAX_RESPONSE   tokens a response may have; a longer one is cut (default: 8192; cpu: 512)
#   GPUS           GPUs of this machine to use (default: all; cpu: always 1)
#   PYTHON         interpreter with this repository installed (default: .venv-gpu/bin/python; cpu: .venv/bin/python)
#   ATTENTION      sdpa where there is no flash-attn (environment variable)
#
# A model is asked through its chat template as it is; one that was trained with settings for it (scripts/models/qwen3_8b.sh)
# needs the same here: +data.apply_chat_template_kwargs.enable_thinking=false
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "MODEL BENCHES N OUT BENCH_DIR TIER MAX_PROMPT MAX_RESPONSE GPUS PYTHON" "$@"
[[ -n "${MODEL:-}" && -n "${BENCHES:-}" ]] || die "MODEL=... and BENCHES=... are needed; --help explains"
choose_machine
prompt=2048 response=8192
[[ "$TIER" == gpu ]] || prompt=1024 response=512 GPUS=1
prompt="${MAX_PROMPT:-$prompt}" response="${MAX_RESPONSE:-$response}" samples="${N:-1}"
whole N "$samples"
whole MAX_PROMPT "$prompt"
whole MAX_RESPONSE "$response"

bench_dir="${BENCH_DIR:-$repo/data/benchmarks}"
files=()
for bench in ${BENCHES//,/ }; do
  file="$bench"
  [[ -f "$file" ]] || file="$bench_dir/$bench.parquet"
  [[ -f "$file" ]] || die "there is no benchmark $bench: neither a file of this name nor $file.
python -m data_preprocess.math_benchmarks and data_preprocess.science_benchmarks make them."
  files+=("$(realpath -s "$file")")
done
find_model
out="$(realpath -ms "${OUT:-$repo/outputs/eval/${MODEL##*/}}")"
enter_repo
choose_attention actor_rollout_ref.model

largest="$("$python" -m recipe.critique_grpo.evaluate.plan --out "$out" --model "$MODEL" --tier "$TIER" \
  --samples "$samples" --max_prompt "$prompt" --max_response "$response" --benches "${files[@]}" \
  ${overrides[@]+"${overrides[@]/#/--override=}"})"

validate() {
  # verl wants a training batch that its workers can share, though nothing is trained.
  local batch=1
  if [[ "$TIER" == gpu ]]; then
    batch=$((largest < 8 ? largest : 8))
  fi
  # Overlong prompts end the run instead of being left out: the score would be of another benchmark.
  "$python" -u -m recipe.critique_grpo.evaluate.run preset=grpo tier="$TIER" \
    "+evaluation.out='$out'" \
    actor_rollout_ref.rollout.val_kwargs.n="$samples" \
    actor_rollout_ref.rollout.val_kwargs.do_sample=true \
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6 \
    actor_rollout_ref.rollout.val_kwargs.top_p=0.95 \
    data.train_batch_size="$batch" \
    data.max_prompt_length="$prompt" \
    data.max_response_length="$response" \
    data.filter_overlong_prompts=false \
    data.validation_shuffle=false \
    actor_rollout_ref.model.path="'$MODEL'" \
    actor_rollout_ref.actor.ppo_mini_batch_size="$batch" \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=$((prompt + response)) \
    actor_rollout_ref.rollout.n="$GPUS" \
    actor_rollout_ref.rollout.agent.num_workers="$batch" \
    actor_rollout_ref.rollout.max_model_len=$((prompt + response)) \
    trainer.n_gpus_per_node="$GPUS" \
    actor_rollout_ref.actor.fsdp_config.param_offload="$([[ "$TIER" == gpu ]] && echo true || echo false)" \
    trainer.val_only=true \
    trainer.val_before_train=true \
    trainer.resume_mode=disable \
    trainer.logger='[console]' \
    trainer.experiment_name=eval \
    "hydra.run.dir='$out/.hydra_run'" \
    ${attention[@]+"${attention[@]}"} \
    ${overrides[@]+"${overrides[@]}"} 2>&1
}

log="$out/eval.log"
if [[ "$largest" == 0 ]]; then
  echo "every run is finished; remove $out to start anew"
else
  say "starting (log: $log)"
  # verl's output goes into the log; what is shown is when a benchmark begins.
  validate | tee -a "$log" | sed -un 's/.*eval\.sh: //p' | while read -r line; do say "$line"; done || {
    echo "eval.sh: stopped with an error; the last lines of $log:" >&2
    sed '/^[[:space:]]*$/d' "$log" | tail -n 15 >&2
    die "run the same command again to go on; what is finished is kept"
  }
fi
rm -rf "$out/.hydra_run" "$out/.dumps" "$out/.missing.json"

"$python" -m recipe.critique_grpo.evaluate "$out"
