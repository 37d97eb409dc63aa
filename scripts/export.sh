#!/usr/bin/env bash
# Make a Hugging Face model folder of a training checkpoint, for scripts/eval.sh, vLLM or transformers: with weights as
# they were trained where the checkpoint has them (tier cpu), else in bf16, by verl's merger.
#
#   bash scripts/export.sh RUN TARGET [STEP]
#
#   RUN      folder of checkpoints (trainer.default_local_dir), or one that has it as checkpoints/
#   TARGET   folder to write; it must not exist
#   STEP     training step (default: the last one that was saved)
#   PYTHON   environment variable: interpreter with this repository installed (default: with a GPU .venv-gpu/bin/python,
#            else .venv/bin/python, else python)
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if [[ $# -lt 2 || $# -gt 3 || "$1" == -* ]]; then
  usage
  [[ "${1:-}" == -h || "${1:-}" == --help ]] && exit 0 || exit 2
fi
run="$1" target="$(realpath -ms "$2")"
[[ -d "$run" ]] || die "there is no folder $run"
[[ ! -d "$run/checkpoints" ]] || run="$run/checkpoints"
run="$(realpath -s "$run")"
latest="$run/latest_checkpointed_iteration.txt"
[[ -n "${3:-}" || -f "$latest" ]] || die "$run holds no checkpoint: there is no $latest"
actor="$run/global_step_${3:-$(<"$latest")}/actor"
if [[ ! -d "$actor" ]]; then # verl keeps the folder of a step whose weights it has removed
  saved="$(cd "$run" && shopt -s nullglob && steps=(global_step_*/actor) && echo "${steps[*]%/actor}")"
  die "there is no checkpoint $actor; saved are: ${saved:-none}"
fi
[[ ! -e "$target" ]] || die "$target is already there: name another folder"
TIER=cpu places=("$repo/.venv/bin/python" "$repo/.venv-gpu/bin/python")
! command -v nvidia-smi >/dev/null || TIER=gpu places=("${places[1]}" "${places[0]}")
python="${PYTHON:-}"
for place in "${places[@]}" python; do
  [[ -n "$python" || ("$place" != python && ! -x "$place") ]] || python="$place"
done
find_python
enter_repo
rm -rf "$target.part"
"$python" -m verl_ext.export "$actor" "$target.part" || die "failed, see above; $target was not written"
mv "$target.part" "$target"
echo "wrote $target"
