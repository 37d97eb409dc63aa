#!/usr/bin/env bash
# Critique-GRPO on Qwen3-8B: 8 GPUs of 80 GB, all parameters. THINKING=true lets it think before it answers.
#
#   bash scripts/models/qwen3_8b.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen3-8B}"
settings=(
  +data.apply_chat_template_kwargs.enable_thinking="${THINKING:-false}"
)
launch "$@"
