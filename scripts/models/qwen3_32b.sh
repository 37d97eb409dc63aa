#!/usr/bin/env bash
# Critique-GRPO on Qwen3-32B: 8 GPUs of 80 GB, all parameters. Weights, gradients and optimizer are in main memory (some
# 600 GB), where Adam's step is computed too; a GPU has the layer that it computes. THINKING=true lets it think before it
# answers; SEQUENCE_PARALLEL (default: 4) spreads a sequence over GPUs.
#
#   bash scripts/models/qwen3_32b.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen3-32B}"
settings=(
  +data.apply_chat_template_kwargs.enable_thinking="${THINKING:-false}"
  # Not param_offload and optimizer_offload: verl has the optimizer on the GPUs during the whole update with those.
  actor_rollout_ref.actor.strategy=fsdp2
  actor_rollout_ref.actor.fsdp_config.offload_policy=true
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096
  actor_rollout_ref.actor.ulysses_sequence_parallel_size="${SEQUENCE_PARALLEL:-4}"
  actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP:-4}"
)
launch "$@"
