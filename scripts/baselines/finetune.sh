#!/usr/bin/env bash
# The paper's fine-tuning baselines: collect a data set with the rollout stage, fine-tune on it with verl's SFT trainer,
# and write the model as a Hugging Face folder, for scripts/eval.sh. After an interruption the same command goes on with the
# collection; the fine-tuning begins anew.
#
#   METHOD=raft bash scripts/baselines/finetune.sh MODEL=... TRAIN=... VAL=... OUT=... [overrides of the SFT trainer]
#
#   METHOD      sft (the data's demonstrations), raft (correct responses), refinement_ft (correct refinements), citl_ft
#               (both), critique_ft (a judge's critiques; needs JUDGE_MODEL)
#   MODEL, TRAIN, VAL   as for scripts/train.sh; VAL is only held against TRAIN: nothing in it may be trained on
#   OUT         folder for rollouts, data set, checkpoints and model (default: outputs/finetune/<model>-<METHOD>)
#   COLLECT     Hydra overrides of the collection, separated by spaces, such as data.max_response_length=4096; on GPUs
#               lengths are those of scripts/models unless it says otherwise. Those of the chat template
#               (+data.apply_chat_template_kwargs...) hold for the fine-tuning too, with METHOD=sft as well
#   SEED        of what is sampled, and of the order in which it is learned (default: 1)
#   CRITIQUE    critique.type while collecting    (default: indicative_gt; critique_ft: cot)
#   ROLLOUTS    folder of an earlier collection, to share it between methods
#   JUDGE_URL, JUDGE_MODEL   of CRITIQUE=cot; the key is in OPENAI_API_KEY
#   COLUMN      of the demonstrations, for sft    (default: target)
#   TIER, GPUS, PYTHON, ATTENTION       as for scripts/train.sh
#   SMOKE=1     the same with a model of 135M parameters and 32 sums on a CPU, for a look; SMOKE_DIR as for scripts/models
#
# Sequential R1-GRPO then Refinement FT is two commands: scripts/train.sh with PRESET=grpo, then this one with
# METHOD=refinement_ft and the exported model.
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
smoke() {
  local data="${SMOKE_DIR:-$repo/outputs/smoke}" python="${PYTHON:-$repo/.venv/bin/python}"
  TIER=cpu GPUS=1 MODEL="$data/smollm2" TRAIN="$data/few/train.parquet" VAL="$data/few/val.parquet"
  if [[ ! -f "$VAL" || ! -d "$MODEL" ]]; then
    (
      cd "$repo"
      # shellcheck source=scripts/cpu_env.sh
      source scripts/cpu_env.sh
      "$python" -m data_preprocess.smollm2 --local_save_dir "$MODEL"
      "$python" -m data_preprocess.arithmetic --local_save_dir "$data/few" --train_size 32 --val_size 8
    )
  fi
  # Such a model gets few refinements right (20 of 256 in one run), and two are needed.
  COLLECT="data.train_batch_size=32 data.max_prompt_length=160 data.max_response_length=32 actor_rollout_ref.rollout.n=8"
  COLLECT+=" actor_rollout_ref.rollout.temperature=0.6 critique_grpo.refinement.trigger=always"
  COLLECT+=" critique_grpo.refinement.max_prompt_length=320 actor_rollout_ref.actor.ppo_mini_batch_size=32"
  COLLECT+=" actor_rollout_ref.rollout.max_model_len=384 actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048"
  overrides=(data.train_batch_size=2 data.max_length=256 trainer.total_epochs=4 trainer.total_training_steps=4
    ${overrides[@]+"${overrides[@]}"})
}
parse "METHOD MODEL TRAIN VAL OUT COLLECT CRITIQUE ROLLOUTS SEED JUDGE_URL JUDGE_MODEL COLUMN TIER GPUS PYTHON" "$@"
[[ "${SMOKE:-}" != 1 ]] || smoke
[[ -n "${METHOD:-}" && -n "${MODEL:-}" && -n "${TRAIN:-}" && -n "${VAL:-}" ]] ||
  die "METHOD, MODEL, TRAIN and VAL are needed; --help explains"
case "$METHOD" in sft | raft | refinement_ft | citl_ft | critique_ft) ;; *) die "METHOD is $METHOD; --help lists them" ;; esac
choose_machine
find_model
seed="${SEED:-1}"
whole SEED "$seed"
files="$(absolute "$TRAIN")" # by itself, so that a missing file ends the script
mapfile -t train <<<"$files"
files="$(absolute "$VAL")"
mapfile -t val <<<"$files"
out="$(realpath -ms "${OUT:-$repo/outputs/finetune/${MODEL##*/}-$METHOD}")"
rollouts="$(realpath -ms "${ROLLOUTS:-$out/rollouts}")"
[[ ! -e "$out/model" ]] || die "$out/model is there already: this baseline is finished"
mkdir -p "$out"
enter_repo
read -ra collect <<<"${COLLECT:-}"
if [[ "$METHOD" != sft ]]; then
  judge=()
  [[ -z "${JUDGE_URL:-}" ]] || judge+=("critique_grpo.judge.base_url='$JUDGE_URL'")
  [[ -z "${JUDGE_MODEL:-}" ]] || judge+=("critique_grpo.judge.model='$JUDGE_MODEL'")
  critique=indicative_gt
  [[ "$METHOD" != critique_ft ]] || critique=cot
  lengths=()
  if [[ "$TIER" == gpu ]]; then # verl's own are 512 and 512
    mapfile -t lengths < <(bash scripts/models/qwen2.5_7b.sh --settings | grep -E '\.(max_\w+_length|max_model_len|ppo_max_\w+)=')
  fi
  choose_attention actor_rollout_ref.model
  say "collecting with $MODEL in $rollouts"
  "$python" -u -m recipe.critique_grpo.finetune.collect tier="$TIER" \
    data.train_files="$(listed "${train[@]}")" data.val_files="$(listed "${val[@]}")" \
    actor_rollout_ref.model.path="'$MODEL'" actor_rollout_ref.actor.use_dynamic_bsz=true \
    data.train_batch_size=64 actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    data.seed="$seed" critique_grpo.seed="$seed" actor_rollout_ref.rollout.seed="$seed" \
    ${lengths[@]+"${lengths[@]}"} ${attention[@]+"${attention[@]}"} \
    critique_grpo.critique.type="${CRITIQUE:-$critique}" critique_grpo.dump_dir="'$rollouts'" \
    trainer.n_gpus_per_node="$GPUS" hydra.run.dir="'$out/hydra'" ${judge[@]+"${judge[@]}"} ${collect[@]+"${collect[@]}"}
fi
batch=64
for override in ${overrides[@]+"${overrides[@]}"}; do
  [[ "$override" != data.train_batch_size=* ]] || batch="${override#*=}"
done
say "the data set of $METHOD"
"$python" -m recipe.critique_grpo.finetune.conversations --method "$METHOD" --rollouts "$rollouts" \
  --train "${train[@]}" --val "${val[@]}" --column "${COLUMN:-target}" --at_least "$batch" --seed "$seed" \
  --out "$out/sft.parquet"
say "fine-tuning"
choose_attention model
template=() # how the policy is asked, in the collection and here
for override in ${collect[@]+"${collect[@]}"}; do
  [[ "$override" != *data.apply_chat_template_kwargs.* ]] || template+=("+data.${override#*data.}")
done
of_the_tier=()
if [[ "$TIER" == cpu ]]; then
  of_the_tier=(trainer.device=cpu engine.strategy=fsdp2 engine.use_torch_compile=false engine.dtype=float32
    '+engine.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}' # bf16, the default, is slow on a CPU
    model.use_remove_padding=false +model.override_config.attn_implementation=sdpa data.num_workers=0
    'checkpoint.save_contents=[model,optimizer,extra,hf_model]' 'checkpoint.load_contents=[model,optimizer,extra]')
fi
"$python" -m torch.distributed.run --standalone --nproc_per_node="$GPUS" -m verl.trainer.sft_trainer \
  data.train_files="'$out/sft.parquet'" data.truncation=right data.max_length=8192 data.train_batch_size="$batch" \
  data.custom_cls.path=pkg://recipe.critique_grpo.finetune.dataset data.custom_cls.name=ResponseDataset \
  model.path="'$MODEL'" optim.lr=1e-5 trainer.total_epochs=2 trainer.n_gpus_per_node="$GPUS" \
  trainer.default_local_dir="'$out/checkpoints'" 'trainer.logger=[console]' trainer.max_ckpt_to_keep=1 \
  trainer.save_freq=-1 trainer.resume_mode=disable hydra.run.dir="'$out/hydra'" \
  ${template[@]+"${template[@]}"} ${of_the_tier[@]+"${of_the_tier[@]}"} ${attention[@]+"${attention[@]}"} ${overrides[@]+"${overrides[@]}"}
step="$(<"$out/checkpoints/latest_checkpointed_iteration.txt")"
rm -rf "$out/model.part"
"$python" -m verl_ext.export "$out/checkpoints/global_step_$step" "$out/model.part"
mv "$out/model.part" "$out/model"
say "wrote $out/model"
