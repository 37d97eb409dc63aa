#!/usr/bin/env bash
# Critique-GRPO on Qwen2.5-7B: 8 GPUs of 80 GB, all parameters.
#
#   bash scripts/models/qwen2.5_7b.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-Qwen/Qwen2.5-7B}"
settings=()
launch "$@"
