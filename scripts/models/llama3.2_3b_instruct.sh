#!/usr/bin/env bash
# Critique-GRPO on Llama-3.2-3B-Instruct: 8 GPUs of 80 GB, all parameters. The model's licence has to be accepted on the hub.
#
#   bash scripts/models/llama3.2_3b_instruct.sh [Hydra overrides]     (launch.sh lists what the environment may set)
set -euo pipefail

# shellcheck source=scripts/models/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
MODEL="${MODEL:-meta-llama/Llama-3.2-3B-Instruct}"
settings=()
launch "$@"
