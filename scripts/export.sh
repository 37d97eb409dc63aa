#!/usr/bin/env bash
# Make a Hugging Face model folder of a training checkpoint, for scripts/eval.sh, vLLM or transformers.
#
#   bash scripts/export.sh RUN TARGET [STEP]
#
#   RUN      folder of checkpoints (trainer.default_local_dir), or one that has it as checkpoints/
#   TARGET   folder to write; it must not exist
#   STEP     training step (default: the last one that was saved)
#   PYTHON   environment variable: interpreter with this repository installed (default: .venv/bin/python, else python)
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
die() {
  echo "export.sh: $*" >&2
  exit 1
}
if [[ $# -lt 2 || $# -gt 3 || "$1" == -* ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  [[ "${1:-}" == -h || "${1:-}" == --help ]] && exit 0 || exit 2
fi
run="$1" target="$(realpath -ms "$2")"
[[ ! -d "$run/checkpoints" ]] || run="$run/checkpoints"
latest="$run/latest_checkpointed_iteration.txt"
[[ -n "${3:-}" || -f "$latest" ]] || die "$run holds no checkpoint: there is no $latest"
actor="$run/global_step_${3:-$(<"$latest")}/actor"
[[ -d "$actor" ]] || die "there is no checkpoint $actor; saved are: $(cd "$run" && echo global_step_*)"
[[ ! -e "$target" ]] || die "$target is already there: name another folder"
actor="$(realpath -s "$actor")"
python="$repo/.venv/bin/python"
[[ -x "$python" ]] || python=python
python="${PYTHON:-$python}"
cd "$repo"
if ! command -v nvidia-smi >/dev/null; then
  # shellcheck source=scripts/cpu_env.sh
  source scripts/cpu_env.sh
fi
"$python" -m verl.model_merger merge --backend fsdp --local_dir "$actor" --target_dir "$target"
echo "wrote $target"
