#!/usr/bin/env bash
# Install the GPU tier into a virtual environment: a pinned verl + vllm stack, this repository in editable mode, and
# flash-attn last, since its build needs the torch that is installed before it.
#
#   bash scripts/install_gpu.sh [VENV_DIR]        (default: .venv-gpu; a second run finds it finished and stops)
#
#   FLASH_ATTN   a wheel of flash-attn made for this torch, CUDA and Python (path or URL), or "none" to go without it
#                (default: build it, which needs CUDA's compiler nvcc)
#   MAX_JOBS     compilers at once in that build (default: as many as cores and memory allow)
#   CUDA_HOME    CUDA toolkit for that build (default: the one that nvcc on PATH or /usr/local/cuda belongs to)
#   PYTHON       interpreter to use, 3.11 or 3.12 (default: the first of python3.11, python3.12, python3 that fits)
set -euo pipefail

flash_attn="2.8.3"
gib_a_job=9 # what one compiler of flash-attn's build takes, by its own setup.py
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="$repo/requirements/gpu.txt"
without="+actor_rollout_ref.model.override_config.attn_implementation=sdpa actor_rollout_ref.model.use_remove_padding=false"

if [[ "${1:-}" == -* || $# -gt 1 ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  [[ "$1" == "-h" || "$1" == "--help" ]] && exit 0 || exit 2
fi
venv="${1:-$repo/.venv-gpu}"
stamp="$venv/.critique_grpo_gpu"
wanted="${FLASH_ATTN:-}"

say() { printf '\n== [%(%H:%M:%S)T] %s\n' -1 "$*"; }
die() {
  printf '\ninstall_gpu.sh: %s\n' "$*" >&2
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
Install one and name it: PYTHON=/path/to/python3.11 bash scripts/install_gpu.sh"
}

# The stamp names everything an installation depends on but flash-attn, and the checkout, which an editable
# installation points to.
fingerprint() {
  printf '%s\n' "$repo"
  cksum <"$requirements"
  cksum <"$repo/setup.py"
  cksum <"${BASH_SOURCE[0]}"
}

# The version of flash-attn in the environment, without its build's name; nothing if there is none.
flash_attn_installed() {
  "$venv/bin/python" - <<'PY'
from importlib.metadata import PackageNotFoundError, version

try:
    print(version("flash-attn").split("+")[0])
except PackageNotFoundError:
    pass
PY
}

how_to_go_without() {
  cat <<EOF
Without flash-attn, training uses PyTorch's attention:
  export ATTENTION=sdpa      # for all scripts; to runs that are started without them add
  $without
It costs time and memory in the update and the log-probs: every micro-batch is padded to its longest row (lower
actor_rollout_ref.actor.ppo_max_token_len_per_gpu if memory runs out), and Ulysses sequence parallelism is not possible.
Sampling is as before: vLLM brings attention kernels of its own.
EOF
}

# Sets nvcc_home to a CUDA toolkit of torch's major version, or nvcc_problem.
find_nvcc() {
  local cuda="$1" found="" home release
  local homes=()
  if [[ -n "${CUDA_HOME:-}" ]]; then
    homes=("$CUDA_HOME")
  else
    ! command -v nvcc >/dev/null || homes+=("$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")")
    homes+=(/usr/local/cuda "/usr/local/cuda-$cuda")
  fi
  nvcc_home="" nvcc_problem=""
  for home in "${homes[@]}"; do
    [[ -x "$home/bin/nvcc" ]] || continue
    release="$("$home/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
    # An nvcc without headers beside it may be a wrapper that somebody put into /usr/local/bin.
    if [[ "${release%%.*}" == "${cuda%%.*}" && -n "$(compgen -G "$home/include/cuda_runtime.h")$(
      compgen -G "$home/targets/*/include/cuda_runtime.h"
    )" ]]; then
      nvcc_home="$home"
      return
    fi
    found+=" $home/bin/nvcc (release ${release:-unknown})"
  done
  nvcc_problem="its build needs nvcc of CUDA ${cuda%%.*} with its headers (torch was built with $cuda); found: ${found:-none}"
}

stop_before_flash_attn() {
  die "everything but flash-attn is installed in $venv, and flash-attn $flash_attn is not: $1.
Choose one:
  - a wheel made for torch $torch, CUDA ${cuda%%.*} and Python $cp:
      FLASH_ATTN=/path/to/flash_attn-$flash_attn+...-$cp-$cp-linux_x86_64.whl bash scripts/install_gpu.sh $venv
  - a build: install the CUDA toolkit $cuda (nvcc and headers), a C++ compiler and Python's headers, and run this again
    (CUDA_HOME=/path/to/cuda names a toolkit in an unusual place)
  - none:
      FLASH_ATTN=none bash scripts/install_gpu.sh $venv
$(how_to_go_without)"
}

if [[ -n "$wanted" && "$wanted" != none && "$wanted" != *://* ]]; then
  [[ -f "$wanted" && "$wanted" == *.whl ]] || die "FLASH_ATTN is $wanted, which is no wheel that is there. Name a file
that ends in .whl, or none, or leave it out to build flash-attn"
fi

if [[ -x "$venv/bin/python" && -f "$stamp" && "$(<"$stamp")" == "$(fingerprint)" ]]; then
  installed="$(flash_attn_installed)"
  if [[ "$installed" == "$flash_attn" || ("$wanted" == none && -z "$installed") ]]; then
    echo "$venv is up to date (${installed:+with}${installed:-without} flash-attn): nothing to do." \
      "Activate it with: source $venv/bin/activate"
    exit 0
  fi
  say "[1/4] using $venv: everything but flash-attn is there"
else
  [[ "$(uname -s)-$(uname -m)" == "Linux-x86_64" ]] ||
    die "requirements/gpu.txt is for Linux x86-64, and this is $(uname -s) $(uname -m)"
  if [[ ! -x "$venv/bin/python" ]]; then
    python="$(find_python)"
    say "[1/4] creating $venv with $("$python" --version)"
    "$python" -m venv "$venv" || die "could not create $venv; on Debian and Ubuntu, install the package python3-venv"
  else
    say "[1/4] using $venv, not finished or out of date"
    fits "$venv/bin/python" || die "$venv holds $("$venv/bin/python" --version), 3.11 or 3.12 is needed; remove it and run this again"
  fi
  rm -f "$stamp"
  unfinished=1
fi
pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --no-deps "$@"; }

if [[ -n "${unfinished:-}" ]]; then
  say "[2/4] $(grep -c '^[^#]*==' "$requirements") pinned packages (requirements/gpu.txt) and this repository; several GB"
  pip_install -r "$requirements" || die "see pip's message above; run this again to go on from here"
  pip_install --no-build-isolation -e "$repo" || die "could not install this repository; see pip's message above"

  say "[3/4] checking the imports"
  "$venv/bin/python" - <<'PY' || die "an import failed; remove $venv and run this again"
import importlib
from importlib.metadata import version

for name in ("torch", "transformers", "ray", "vllm", "verl", "reasoning_gym", "math_verify", "gguf", "recipe.critique_grpo"):
    importlib.import_module(name)
import torch

print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray", "vllm", "verl")))
if torch.version.cuda is None:
    raise SystemExit(f"torch {torch.__version__} is a build without CUDA; pip was told where to find another one")
if not torch.cuda.is_available():
    print(f"note: torch (CUDA {torch.version.cuda}) sees no GPU here: no driver, too old a driver, or no card")
PY
  fingerprint >"$stamp"
fi

read -r torch cuda cp < <("$venv/bin/python" - <<'PY'
import sys

import torch

print(torch.__version__.split("+")[0], torch.version.cuda, "cp%d%d" % sys.version_info[:2])
PY
)
installed="$(flash_attn_installed)"
if [[ "$installed" == "$flash_attn" ]]; then
  say "[4/4] flash-attn $flash_attn is installed already"
elif [[ "$wanted" == none ]]; then
  # Another version would be used by transformers, which looks whether there is one.
  [[ -z "$installed" ]] || "$venv/bin/python" -m pip uninstall -y flash-attn
  say "[4/4] flash-attn left out (FLASH_ATTN=none)"
  how_to_go_without
elif [[ -n "$wanted" ]]; then
  say "[4/4] flash-attn from $wanted"
  pip_install "$wanted" || stop_before_flash_attn "pip refused $wanted, see its message above"
else
  say "[4/4] flash-attn $flash_attn, to be built"
  find_nvcc "$cuda"
  [[ -n "$nvcc_home" ]] || stop_before_flash_attn "$nvcc_problem"
  command -v "${CXX:-g++}" >/dev/null || stop_before_flash_attn "its build needs a C++ compiler; there is no ${CXX:-g++}"
  headers="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
  [[ -f "$headers/Python.h" ]] || stop_before_flash_attn "its build needs Python's headers; there is no $headers/Python.h"
  available=$(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024 / 1024))
  jobs="${MAX_JOBS:-$((available / gib_a_job < $(nproc) ? available / gib_a_job : $(nproc)))}"
  ((jobs > 0)) || stop_before_flash_attn "its build needs about $gib_a_job GiB of free memory, and $available GiB are free
(MAX_JOBS=1 tries it all the same)"
  # Kernels for the cards of this machine alone; the build takes several times as long for all.
  if [[ -z "${FLASH_ATTN_CUDA_ARCHS:-}" ]] && command -v nvidia-smi >/dev/null; then
    FLASH_ATTN_CUDA_ARCHS="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
      sed -n 's/^\([0-9]*\)\..*/\10/p' | sort -un | paste -sd';')" || true
    if [[ -n "$FLASH_ATTN_CUDA_ARCHS" ]]; then export FLASH_ATTN_CUDA_ARCHS; else unset FLASH_ATTN_CUDA_ARCHS; fi
  fi
  echo "$nvcc_home/bin/nvcc, $jobs at once, for ${FLASH_ATTN_CUDA_ARCHS:-all} architectures." \
    "From minutes with many cores to hours with a few."
  CUDA_HOME="$nvcc_home" MAX_JOBS="$jobs" PATH="$venv/bin:$PATH" \
    pip_install --no-build-isolation --no-cache-dir -v "flash-attn==$flash_attn" >"$venv/flash_attn_build.log" 2>&1 ||
    { tail -n 20 "$venv/flash_attn_build.log" >&2 && stop_before_flash_attn "its build failed, see $venv/flash_attn_build.log"; }
fi

if [[ "$wanted" != none ]]; then
  # What does not fit is removed again: transformers would use it. A wheel made for another torch installs without a word.
  installed="$(flash_attn_installed)" problem=""
  if [[ "$installed" != "$flash_attn" ]]; then
    problem="the wheel holds ${installed:-another package}"
  elif ! "$venv/bin/python" -c 'import torch, flash_attn'; then
    problem="what was installed does not load with this torch (see above) and was removed"
  fi
  if [[ -n "$problem" ]]; then
    "$venv/bin/python" -m pip uninstall -qy flash-attn
    stop_before_flash_attn "$problem"
  fi
fi
say "done. Activate it with: source $venv/bin/activate"
