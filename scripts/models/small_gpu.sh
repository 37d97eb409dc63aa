#!/usr/bin/env bash
# Critique-GRPO on Qwen2.5-1.5B-Instruct with one GPU: LoRA on 24 GB, or with FULL=1 all parameters on 80 GB.
#
#   bash scripts/models/small_gpu.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen2.5-1.5B-Instruct}"
settings=(
  data.train_batch_size=32
  data.max_prompt_length=512
  data.max_response_length=1024
  critique_grpo.refinement.max_prompt_length=2048
  actor_rollout_ref.actor.ppo_mini_batch_size=32
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096
  actor_rollout_ref.rollout.max_model_len=3072
  actor_rollout_ref.rollout.gpu_memory_utilization=0.4
  actor_rollout_ref.rollout.agent.num_workers=2
  reward.num_workers=2
)
export GPUS="${GPUS:-1}"
if [[ "${FULL:-}" != 1 ]]; then
  settings+=(
    actor_rollout_ref.model.lora_rank="${LORA_RANK:-32}"
    actor_rollout_ref.model.lora_alpha="${LORA_ALPHA:-64}"
    actor_rollout_ref.model.target_modules=all-linear
    actor_rollout_ref.rollout.load_format=safetensors
    actor_rollout_ref.rollout.layered_summon=true
    actor_rollout_ref.actor.optim.lr=1e-5
  )
fi
launch "$@"
