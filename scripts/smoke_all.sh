#!/usr/bin/env bash
# Every script of models and baselines as it is, at toy scale on a CPU, one after the other; ends in a table of what came of
# each. A job that has passed is not run again.
#
#   bash scripts/smoke_all.sh [JOB ...]      # all jobs, or those that are named; --list names them
#
#   SMOKE_DIR   where models, data, runs and logs go (default: outputs/smoke)
#   VENV        virtual environment to make or use (default: .venv)
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
models=(qwen2.5_7b qwen2.5_math_7b qwen3_8b qwen3_32b llama3.2_3b_instruct small_gpu)
# The baselines, and the family; default is what the models' scripts run, and paper and released are values of its options.
presets=(grpo dr_grpo luffy sft raft refinement_ft citl_ft icrl ditto recrit)
finetune=(raft refinement_ft citl_ft critique_ft sft)
jobs=("${models[@]/#/models/}" "${presets[@]/#/preset/}" "${finetune[@]/#/finetune/}")
case "${1:-}" in
  -h | --help) usage && exit ;;
  --list) printf '%s\n' "${jobs[@]}" && exit ;;
esac
for job in "$@"; do
  [[ " ${jobs[*]} " == *" $job "* ]] || die "there is no job $job; --list names them"
done
(($# == 0)) || jobs=("$@")
# As in study.sh: the toy model keeps no second core of the server busy.
export VLLM_CPU_OMP_THREADS_BIND="${VLLM_CPU_OMP_THREADS_BIND:-$(($(nproc) - 1))}"
cpu_tier
export SMOKE=1 SMOKE_DIR PYTHON="$python"
SMOKE_DIR="$(realpath -ms "${SMOKE_DIR:-outputs/smoke}")"
mkdir -p "$SMOKE_DIR/logs"

with_judge() { # the command
  local address="$SMOKE_DIR/judge" judge status=0
  rm -f "$address"
  "$python" scripts/toy_judge.py >"$address" &
  judge=$!
  until [[ -s "$address" ]] || ! kill -0 "$judge" 2>/dev/null; do sleep 1; done
  JUDGE_URL="$(<"$address")" JUDGE_MODEL=toy "$@" || status=$?
  kill "$judge" 2>/dev/null || true
  return "$status"
}

run() { # job
  local name="${1#*/}" out="$SMOKE_DIR/$1"
  case "$1" in
    models/*) OUT="$out" bash "scripts/models/$name.sh" ;;
    preset/ditto) OUT="$out" PRESET="$name" with_judge bash scripts/models/qwen2.5_7b.sh ;;
    preset/*) OUT="$out" PRESET="$name" bash scripts/models/qwen2.5_7b.sh ;;
    finetune/critique_ft)
      rm -rf "$SMOKE_DIR/judged" # of a judge at another port
      OUT="$out" METHOD="$name" ROLLOUTS="$SMOKE_DIR/judged" with_judge bash scripts/baselines/finetune.sh
      ;;
    finetune/*) OUT="$out" METHOD="$name" ROLLOUTS="$SMOKE_DIR/rollouts" bash scripts/baselines/finetune.sh ;;
  esac
}

failed=0
for job in "${jobs[@]}"; do
  log="$SMOKE_DIR/logs/${job//\//.}.log"
  [[ ! -f "$log.passed" ]] || continue
  say "$job"
  started=$SECONDS
  if run "$job" >"$log" 2>&1; then
    echo "$((SECONDS - started))" >"$log.passed"
  else
    echo "failed after $((SECONDS - started)) s; the end of $log:" >&2
    tail -n 5 "$log" >&2
    failed=1
  fi
done
printf '\n| job | result | seconds |\n|---|---|---|\n'
for job in "${jobs[@]}"; do
  passed="$SMOKE_DIR/logs/${job//\//.}.log.passed"
  if [[ -f "$passed" ]]; then
    printf '| %s | passed | %s |\n' "$job" "$(<"$passed")"
  else
    printf '| %s | FAILED | |\n' "$job"
  fi
done
exit "$failed"
