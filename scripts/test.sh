#!/usr/bin/env bash
# The checks of this repository on a machine without a GPU: install, lint, types, unit, integration, end to end.
#
#   bash scripts/test.sh [pytest options, such as -k policy_loss]
#
#   VENV   virtual environment to make or use (default: .venv)
#   SLOW   1: also the tests marked slow, whole runs for one feature (SFT, LoRA, two machines, two ranks, the study,
#          memory), which double the time
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-$PWD/.venv}"
bash scripts/install_cpu.sh "$venv"
# shellcheck source=scripts/cpu_env.sh
source scripts/cpu_env.sh
export PATH="$venv/bin:$PATH"

ruff check .
ruff format --check .
mypy
# A test that starts processes of its own sets the platform itself; the others see a machine without it.
unset VERL_PLATFORM
selected=(-m "not slow")
[[ "${SLOW:-0}" == 1 ]] && selected=()
none=0
tests() { # a selection that finds nothing in one half may find something in the other
  local status=0
  python -m pytest -q ${selected[@]+"${selected[@]}"} "$@" || status=$?
  ((status == 0 || status == 5)) || exit "$status"
  ((status == 0)) || none=$((none + 1))
}
# Unit tests share the cores; the others are one real system after another: two at a time do not fit into 24 GB.
tests --numprocesses auto --dist loadfile "$@" tests/unit
tests --durations=10 "$@" tests/integration tests/e2e
((none < 2)) || exit 5 # as pytest does when nothing is selected
