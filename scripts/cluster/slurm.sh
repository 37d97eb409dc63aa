#!/usr/bin/env bash
#SBATCH --job-name=critique_grpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=48:00:00
# A training run on the machines of a SLURM job: a Ray cluster of them, then the given script on the first one.
#
#   sbatch --nodes=4 scripts/cluster/slurm.sh scripts/models/qwen3_32b.sh [Hydra overrides]
#   sbatch scripts/cluster/slurm.sh scripts/train.sh MODEL=... TRAIN=... VAL=... [Hydra overrides]
#
# Submit it from the repository, which all machines see at the same path, with what the script reads in the environment.
# The same command goes on from the last checkpoint, after the end of a job too.
#
#   PORT, TIER, GPUS, PYTHON   see node.sh
set -euo pipefail

repo="${SLURM_SUBMIT_DIR:-$PWD}"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '/^# A training/,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit
fi
[[ -f "$repo/scripts/cluster/node.sh" ]] || {
  echo "slurm.sh: $repo is not the repository; submit it from there" >&2
  exit 1
}
[[ -f "${1:-}" ]] || {
  echo "slurm.sh: name the script to run, such as scripts/models/qwen2.5_7b.sh" >&2
  exit 1
}
cd "$repo"
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${machines[0]}" port="${PORT:-6379}"
on() { # machine, command ...
  srun --overlap --cpu-bind=none --nodes=1 --ntasks=1 --nodelist="$1" --gpus-per-node="${SLURM_GPUS_PER_NODE:-0}" "${@:2}"
}
on "$head" bash scripts/cluster/node.sh head &
for machine in "${machines[@]:1}"; do
  on "$machine" bash scripts/cluster/node.sh join "$head:$port" &
done
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

export RAY_ADDRESS="$head:$port" NODES="${#machines[@]}" # training waits until all have joined
# What to type to go on: the address is gone with the job.
CRITIQUE_GRPO_COMMAND="sbatch --nodes=$NODES scripts/cluster/slurm.sh $(printf '%q ' "$@")"
export CRITIQUE_GRPO_COMMAND
on "$head" bash "$1" "${@:2}" trainer.nnodes="$NODES"
