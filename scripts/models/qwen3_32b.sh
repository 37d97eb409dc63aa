#!/usr/bin/env bash
# Critique-GRPO on Qwen3-32B: 8 GPUs of 80 GB, all parameters. Weights and optimizer wait in main memory (some 600 GB)
# while they are not needed. THINKING=true lets it think before it answers.
#
#   bash scripts/models/qwen3_32b.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen3-32B}"
settings=(
  +data.apply_chat_template_kwargs.enable_thinking="${THINKING:-false}"
  actor_rollout_ref.actor.fsdp_config.param_offload=true
  actor_rollout_ref.actor.fsdp_config.optimizer_offload=true
  actor_rollout_ref.actor.ulysses_sequence_parallel_size="${SEQUENCE_PARALLEL:-4}"
  actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP:-4}"
)
launch "$@"
