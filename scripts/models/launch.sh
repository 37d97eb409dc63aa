# What the scripts of models share; sourced. Each sets MODEL and `settings`, then calls `launch "$@"`. From the environment:
#
#   PRESET        default, paper, released, grpo; or a baseline: dr_grpo, luffy, sft, raft, refinement_ft, citl_ft
#                 (default: default); or of the family (docs/family.md): icrl, ditto, recrit, with critique, k and
#                 learning rate of their own
#   CRITIQUE      critique.type: indicative_gt, indicative, cot, self ...  (default: indicative_gt)
#   REFINEMENTS   k, refinements that join a group of 8                    (default: 1)
#   JUDGE_URL, JUDGE_MODEL   of CRITIQUE=cot; the key is in OPENAI_API_KEY
#   TRAIN, VAL    parquet files, separated by spaces                       (default: data/openr1, data/benchmarks)
#   OUT           folder of the run                                        (default: outputs/train/<model>-<preset>)
#   GPUS, NODES   of each machine, and how many machines                   (default: all; 1)
#   TIER, PYTHON, ATTENTION=sdpa (where there is no flash-attn)   as for train.sh
#   ROLLOUT_TP    GPUs that the rollout spreads a model over            (default: 1)
#   SMOKE=1       the same script with a tiny random model on a CPU: two steps in two minutes, for a look at what it does;
#                 model and data go to SMOKE_DIR (default: outputs/smoke)
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
name="$(basename "$0" .sh)"

# The sizes of the released script (test_model_scripts.py names the source), lr and temperature of both sources.
shared=(
  data.train_batch_size=128
  data.max_prompt_length=2048
  data.max_response_length=6144
  critique_grpo.refinement.max_prompt_length=8704
  actor_rollout_ref.actor.ppo_mini_batch_size=64
  actor_rollout_ref.rollout.n=8
  actor_rollout_ref.rollout.temperature=1.0
  actor_rollout_ref.rollout.max_model_len=14848
  actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP:-1}"
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
  actor_rollout_ref.model.enable_gradient_checkpointing=true
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6
  trainer.logger='[console,file,tensorboard]'
  trainer.total_epochs=3
)

launch() { # the user's overrides, --settings to see what the script sets, or --help
  local toy=() roles=()
  if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
    sed -n '/^#/!q;s/^# \{0,1\}//;p' "${BASH_SOURCE[0]}"
    exit
  fi
  if [[ "${1:-}" == --settings ]]; then
    printf '%s\n' "${shared[@]}" ${settings[@]+"${settings[@]}"}
    exit
  fi
  local one
  for one in "$@"; do # as train.sh takes it too
    [[ "$one" != PRESET=* ]] || export PRESET="${one#*=}"
  done
  case "${PRESET:-default}" in
    icrl | ditto | recrit) # the prompt of a critic or refiner holds a response
      roles=("$(printf '%s\n' "${shared[@]}" ${settings[@]+"${settings[@]}"} |
        sed -n 's/^critique_grpo\.refinement\.max_prompt_length=/data.max_prompt_length=/p' | tail -n 1)")
      ;;
    grpo | dr_grpo | luffy | sft | raft) # which refine nothing
      shared+=(actor_rollout_ref.actor.optim.lr=1e-6)
      ;;
    *)
      shared+=(actor_rollout_ref.actor.optim.lr=1e-6)
      shared+=("critique_grpo.critique.type=${CRITIQUE:-indicative_gt}" "critique_grpo.refinement.num=${REFINEMENTS:-1}")
      ;;
  esac
  [[ "${SMOKE:-}" != 1 ]] || smoke
  [[ -z "${JUDGE_URL:-}" ]] || shared+=("critique_grpo.judge.base_url='$JUDGE_URL'")
  [[ -z "${JUDGE_MODEL:-}" ]] || shared+=("critique_grpo.judge.model='$JUDGE_MODEL'")
  export MODEL
  export TRAIN="${TRAIN:-data/openr1/train.parquet}"
  export VAL="${VAL:-data/benchmarks/aime24.parquet data/benchmarks/math500.parquet}"
  exec bash "$repo/scripts/train.sh" "${shared[@]}" trainer.nnodes="${NODES:-1}" ${settings[@]+"${settings[@]}"} \
    ${roles[@]+"${roles[@]}"} ${toy[@]+"${toy[@]}"} "$@"
}

smoke() {
  local data="${SMOKE_DIR:-$repo/outputs/smoke}" python="${PYTHON:-$repo/.venv/bin/python}"
  export TIER=cpu GPUS=1 OUT="${OUT:-$data/$name}"
  MODEL="$data/tiny" TRAIN="$data/sums/train.parquet" VAL="$data/sums/val.parquet"
  if [[ ! -f "$VAL" ]]; then
    (
      cd "$repo"
      # shellcheck source=scripts/cpu_env.sh
      source scripts/cpu_env.sh
      "$python" -m data_preprocess.smollm2 --local_save_dir "$data/smollm2"
      "$python" -m data_preprocess.tiny_model --tokenizer_from "$data/smollm2" --local_save_dir "$data/tiny"
      "$python" -m data_preprocess.arithmetic --local_save_dir "$data/sums" --train_size 48 --val_size 8
    )
  fi
  toy=(
    data.train_batch_size=6
    data.max_prompt_length=160
    data.max_response_length=32
    critique_grpo.refinement.max_prompt_length=320
    actor_rollout_ref.actor.ppo_mini_batch_size=6
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048
    actor_rollout_ref.model.enable_gradient_checkpointing=false
    actor_rollout_ref.rollout.n=4
    actor_rollout_ref.rollout.max_model_len=384
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    actor_rollout_ref.rollout.gpu_memory_utilization=0.3
    actor_rollout_ref.actor.ulysses_sequence_parallel_size=1
    actor_rollout_ref.actor.fsdp_config.param_offload=false
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=false
    actor_rollout_ref.actor.fsdp_config.offload_policy=false
    trainer.logger='[console,file]'
    trainer.total_training_steps=2
    trainer.val_before_train=false
    trainer.save_freq=-1
  )
  case "${PRESET:-default}" in
    icrl | ditto | recrit) # of the eight rows some are of roles
      toy+=(data.max_prompt_length=256 actor_rollout_ref.rollout.n=8 critique_grpo.critique.max_tokens=32)
      ;;
  esac
}
