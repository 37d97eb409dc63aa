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
# A test that starts processes of its own sets the platform itself; the others see a machine without it.
unset VERL_PLATFORM
selected=(-m "not slow")
[[ "${SLOW:-0}" == 1 ]] && selected=()
tests() { python -m pytest -q ${selected[@]+"${selected[@]}"} "$@"; }
# Integration and end to end are one real system after another, since two do not fit into 24 GB, and one leaves a third
# of two cores idle. The types and the unit tests take that, on all cores but one; what they say comes when they end.
quick() {
  local said status=0 beside=$(($(nproc) > 2 ? $(nproc) - 1 : 1))
  renice -n 5 "$BASHPID" >/dev/null # where both cores are wanted, the real system's threads wait for each other
  said="$(mypy 2>&1 && tests --numprocesses "$beside" --dist loadfile "$@" tests/unit 2>&1)" || status=$?
  printf '\n== types and unit tests\n%s\n== types and unit tests ended with %s\n' "$said" "$status"
  return "$status"
}
set -m # a process group of its own, that an interruption can end
quick "$@" &
set +m
trap 'kill -- -$! 2>/dev/null || true' EXIT
unit=0 systems=0
tests --durations=10 "$@" tests/integration tests/e2e || systems=$?
wait $! || unit=$?
# pytest ends with 5 where nothing is selected, which may be so in one of the two.
((unit == 5)) && exit "$systems"
((systems == 0 || systems == 5)) || exit "$systems"
exit "$unit"
