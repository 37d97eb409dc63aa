#!/usr/bin/env bash
# Every row of the paper's main table for one model, as jobs one after the other: training or fine-tuning, export,
# evaluation. Ends in the paper's averages with ours beside them. After an interruption the same command goes on.
#
#   bash scripts/reproduce_table.sh qwen2.5_7b DRY_RUN=1          # jobs, GPU-hours, disk; nothing is run
#   bash scripts/reproduce_table.sh qwen2.5_7b [NAME=value ...] [Hydra overrides of every training run]
#
#   the first argument   a script of scripts/models, without its ending
#   ROWS      names of rows, separated by semicolons (default: all; DRY_RUN=1 lists them)
#   SEEDS     (default: "1 2 3"; the paper has three runs)
#   MODEL, TRAIN, VAL    as for scripts/models   (default: the script's own)
#   BENCHES   as for scripts/eval.sh             (default: the paper's nine)
#   OUT       folder                             (default: outputs/table/<script>)
#   JUDGE_URL, JUDGE_MODEL   environment variables of the rows with critiques by a judge; the key is in OPENAI_API_KEY
#   PYTHON, TIER, GPUS       as for scripts/train.sh
#   SMOKE=1   environment variable: the same with a tiny model on a CPU, see scripts/models/launch.sh
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case "${1:-}" in
  -h | --help | '') usage && exit ;;
esac
script="$1"
shift
parse "ROWS SEEDS MODEL TRAIN VAL BENCHES OUT DRY_RUN PYTHON TIER GPUS" "$@"
[[ -f "$repo/scripts/models/$script.sh" ]] || die "there is no scripts/models/$script.sh"
[[ "${SMOKE:-}" != 1 ]] || TIER=cpu GPUS=1
choose_machine
if [[ -z "${MODEL:-}" ]]; then
  MODEL="$(sed -n 's/^MODEL="${MODEL:-\(.*\)}"$/\1/p' "$repo/scripts/models/$script.sh")"
fi
inside() { # files or names, separated by spaces -> likewise, files by their paths: the jobs run in the repository
  local one found=""
  for one in $1; do
    [[ ! -f "$one" ]] || one="$(realpath -s "$one")"
    found+=" $one"
  done
  printf '%s' "${found# }"
}
TRAIN="$(inside "${TRAIN:-data/openr1/train.parquet}")"
VAL="$(inside "${VAL:-data/benchmarks/aime24.parquet data/benchmarks/math500.parquet}")"
if [[ "${SMOKE:-}" == 1 ]]; then # makes its model and its data
  toy="${SMOKE_DIR:-$repo/outputs/smoke}"
  [[ -f "$toy/sums/val.parquet" ]] || SMOKE=1 bash "$repo/scripts/models/$script.sh" --preflight
  MODEL="$toy/tiny" BENCHES="${BENCHES:-$toy/sums/val.parquet}"
fi
# What the script sets for its model holds for every row: lengths, chat template, GPUs that a model is spread over.
settings=()
[[ "${SMOKE:-}" == 1 ]] || mapfile -t settings < <(bash "$repo/scripts/models/$script.sh" --settings)
BENCHES="$(inside "${BENCHES:-math500 minerva olympiad_bench aime24 aime25 amc23 theoremqa gpqa_diamond mmlu_pro}")"
find_model
out="$(realpath -ms "${OUT:-$repo/outputs/table/$script}")"
chosen=()
[[ -z "${ROWS:-}" ]] || IFS=';' read -ra chosen <<<"$ROWS"
read -ra seeds <<<"${SEEDS:-1 2 3}"
dry=()
[[ "${DRY_RUN:-0}" == 0 ]] || dry=(--dry-run)
export TIER GPUS PYTHON="$python" BENCH_DIR="${BENCH_DIR:-$repo/data/benchmarks}"
enter_repo
exec "$python" -m recipe.critique_grpo.table --script "$script" --model "$MODEL" --train "$TRAIN" --val "$VAL" \
  --benches "$BENCHES" --out "$out" --seeds "${seeds[@]}" ${chosen[@]+--rows "${chosen[@]}"} \
  ${overrides[@]+"${overrides[@]/#/--override=}"} ${settings[@]+"${settings[@]/#/--setting=}"} ${dry[@]+"${dry[@]}"}
