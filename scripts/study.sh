#!/usr/bin/env bash
# The study: does Critique-GRPO learn problems that a model persistently fails, where GRPO cannot? Builds a model of 1.9M
# parameters that has practised subtraction, then trains it on additions that it has never seen, with every method.
#
#   bash scripts/study.sh [Hydra overrides]
#   bash scripts/study.sh --quick          # GRPO and Critique-GRPO with one seed
#
#   OUT      where model, data and runs go (default: outputs/study); finished runs are kept
#   METHODS  which methods, separated by semicolons (default: "GRPO;indicative_gt"; study/methods.py has them all)
#   SEEDS    default: "0 1 2"
#   STEPS    updates of a run (default: 100)
#   WARM_START   seed of the model, which needs a folder OUT of its own (default: 0)
#   SMOLLM2=1    the same question to SmolLM2-135M-Instruct (study/smollm2.py; OUT: outputs/study_smollm2, STEPS: 20)
#   CRITICS=1    a model that has practised critiques of a teacher, of peers and of its own, for the methods cot, peers,
#                self, and "self, trained critic"; with a folder OUT of its own
#   VENV     virtual environment to make or use (default: .venv)
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "${1:-}" != -h && "${1:-}" != --help ]] || { usage && exit; }
if [[ "${1:-}" == --quick ]]; then
  shift
  SEEDS=0 METHODS="GRPO;indicative_gt"
fi
IFS=';' read -ra methods <<<"${METHODS:-GRPO;indicative_gt}"
read -ra seeds <<<"${SEEDS:-0 1 2}"
if [[ "${SMOLLM2:-0}" != 0 ]]; then
  cpu_tier
  out="$(realpath -ms "${OUT:-outputs/study_smollm2}")"
  "$python" -m data_preprocess.smollm2 --local_save_dir "$out/model"
  "$python" -u -m recipe.critique_grpo.study.smollm2 --out "$out" --model "$out/model" --steps "${STEPS:-20}" \
    --methods "${methods[@]}" --seeds "${seeds[@]}" -- "$@"
  exit
fi
# One core for the server: a model of this size keeps no second one busy, and each product would wait for it to be free.
export VLLM_CPU_OMP_THREADS_BIND="${VLLM_CPU_OMP_THREADS_BIND:-$(($(nproc) - 1))}"
cpu_tier
out="$(realpath -ms "${OUT:-outputs/study}")"
critics=()
[[ "${CRITICS:-0}" == 0 ]] || critics=(--critics)
"$python" -u -m recipe.critique_grpo.study.run --out "$out" --steps "${STEPS:-100}" --methods "${methods[@]}" \
  --seeds "${seeds[@]}" --warm_start "${WARM_START:-0}" ${critics[@]+"${critics[@]}"} -- "$@"
"$python" -m recipe.critique_grpo.study.report --out "$out"
