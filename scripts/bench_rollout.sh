#!/usr/bin/env bash
# Measure what the streaming rollout stage saves: the same requests through a stage with barriers, through ours, and
# through ours with stop_after_correct, on a real vLLM server with a tiny model; then on a simulated server, for sizes
# that a laptop does not serve.
#
#   bash scripts/bench_rollout.sh [--rounds 5] [--max_num_seqs 128]
#   bash scripts/bench_rollout.sh --measured outputs/bench/measured.json   # simulate with the speed of an earlier run
#   bash scripts/bench_rollout.sh --step_ms 8 --row_ms 0.06                # simulate a server of this speed
#
#   OUT    where model, data and results go (default: outputs/bench)
#   VENV   virtual environment to make or use (default: .venv)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 0
fi
out="${OUT:-outputs/bench}"
venv="${VENV:-$PWD/.venv}"
bash scripts/install_cpu.sh "$venv"
# One core is left to everything that is not the model: here, unlike in training, both are busy at the same time.
export VLLM_CPU_OMP_THREADS_BIND="${VLLM_CPU_OMP_THREADS_BIND:-0-$(($(nproc) > 1 ? $(nproc) - 2 : 0))}"
# shellcheck source=scripts/cpu_env.sh
source scripts/cpu_env.sh
python="$venv/bin/python"

"$python" -m data_preprocess.smollm2 --local_save_dir "$out/smollm2"
# Deep and narrow: the model takes more of the time than Python does, as on a GPU. Few tokens, but enough for English
# text, and no worked examples: as in real training, prompts are short against responses.
"$python" -m data_preprocess.tiny_model --tokenizer_from "$out/smollm2" --local_save_dir "$out/model" --num_layers 8 \
  --vocab_size 2048 --vocab_text README.md recipe/critique_grpo/README.md
[[ -f "$out/problems/train.parquet" ]] ||
  "$python" -m data_preprocess.arithmetic --local_save_dir "$out/problems" --train_size 64 --val_size 1 --shots 0
"$python" -u -m recipe.critique_grpo.bench --model "$out/model" --data "$out/problems/train.parquet" --out "$out" "$@"
