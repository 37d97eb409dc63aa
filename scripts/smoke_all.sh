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
# default is what the models' scripts run; ditto needs a judge
presets=(paper released grpo dr_grpo luffy sft raft refinement_ft citl_ft icrl recrit)
finetune=(raft refinement_ft citl_ft sft)                                  # critique_ft needs a judge
jobs=("${models[@]/#/models/}" "${presets[@]/#/preset/}" "${finetune[@]/#/finetune/}")
case "${1:-}" in
  -h | --help) usage && exit ;;
  --list) printf '%s\n' "${jobs[@]}" && exit ;;
esac
for job in "$@"; do
  [[ " ${jobs[*]} " == *" $job "* ]] || die "there is no job $job; --list names them"
done
(($# == 0)) || jobs=("$@")
cpu_tier
export SMOKE=1 SMOKE_DIR PYTHON="$python"
SMOKE_DIR="$(realpath -ms "${SMOKE_DIR:-outputs/smoke}")"
mkdir -p "$SMOKE_DIR/logs"

run() { # job
  local name="${1#*/}" out="$SMOKE_DIR/$1"
  case "$1" in
    models/*) OUT="$out" bash "scripts/models/$name.sh" ;;
    preset/*) OUT="$out" PRESET="$name" bash scripts/models/qwen2.5_7b.sh ;;
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
