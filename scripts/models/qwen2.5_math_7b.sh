#!/usr/bin/env bash
# Critique-GRPO on Qwen2.5-Math-7B: 8 GPUs of 80 GB, all parameters. Its context is 4096 tokens: question, failed answer,
# critique and refinement have to fit into it, so responses are shorter than those of the other models.
#
#   bash scripts/models/qwen2.5_math_7b.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen2.5-Math-7B}"
settings=(
  data.max_prompt_length=512
  data.max_response_length=1536
  critique_grpo.refinement.max_prompt_length=2560
  actor_rollout_ref.rollout.max_model_len=4096
)
launch "$@"
