#!/usr/bin/env bash
# Every check of this repository on a machine without a GPU: install, lint, types, unit, integration, end to end.
#
#   bash scripts/test.sh [pytest arguments]
#
#   VENV   virtual environment to make or use (default: .venv)
set -euo pipefail

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
# Unit tests share the cores; the others are one real system after another, which needs all of them.
python -m pytest -q --numprocesses auto --dist loadfile "$@" tests/unit || [[ $? == 5 ]] # 5: the arguments select none
python -m pytest -q --durations=10 "$@" tests/integration tests/e2e || [[ $? == 5 ]]
