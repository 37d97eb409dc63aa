"""Shared by integration and end-to-end tests: a tiny random model, a few problems, the settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ("e2e.in_turn",)
REPO = Path(__file__).resolve().parents[1]


def _build(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=REPO, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct; CRITIQUE_GRPO_TEST_MODEL saves building it."""
    if folder := os.environ.get("CRITIQUE_GRPO_TEST_MODEL"):
        return Path(folder)
    built = tmp_path_factory.mktemp("models") / "smollm2"
    _build("data_preprocess.smollm2", "--local_save_dir", str(built))
    return built


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    """A random Llama with a tokenizer like SmolLM2's, but small: 49,000 tokens would take most of its time."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    # A text of their own: what a random model says depends on its vocabulary, and some tests need a little luck.
    vocabulary = ["--vocab_size", "2048", "--vocab_text", *map(str, sorted((REPO / "tests/vocabulary").iterdir()))]
    _build("data_preprocess.tiny_model", "--tokenizer_from", str(smollm2), "--local_save_dir", str(folder), *vocabulary)
    return folder


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.parquet (48 sums) and val.parquet (8)."""
    folder = tmp_path_factory.mktemp("data")
    _build("data_preprocess.arithmetic", "--local_save_dir", str(folder), "--train_size", "48", "--val_size", "8")
    return folder


@pytest.fixture(scope="session")
def overrides(tiny_model: Path, problems: Path) -> list[str]:
    """Hydra overrides of a small CPU run: 6 prompts x 4 responses of 16 tokens."""
    return [
        "tier=cpu",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "data.train_batch_size=6",
        "data.max_prompt_length=160",
        "data.max_response_length=16",
        "critique_grpo.refinement.max_prompt_length=320",
        f"actor_rollout_ref.model.path={tiny_model}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=6",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.max_model_len=384",
        "trainer.val_before_train=false",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
    ]


def value(overrides: list[str], option: str) -> str:
    """What the overrides set an option to."""
    return next(one.split("=", 1)[1] for one in overrides if one.startswith(f"{option}="))


@pytest.fixture(scope="session")
def cpu_environment() -> dict[str, str]:
    """The environment of ``scripts/cpu_env.sh``, and a Ray of one's own, whatever cluster is there or was."""
    names = subprocess.run(
        ["bash", "-c", "set -a; source scripts/cpu_env.sh; env -0"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    found = dict(entry.split("=", 1) for entry in names.stdout.split("\0") if "=" in entry)
    return {**found, "RAY_ADDRESS": "local"}


def run_logged(command: list[str], log: Path, environment: dict[str, str], timeout: int) -> str:
    """Run a command with its output in ``log``; the output is part of the failure's message."""
    for _ in range(3):
        with open(log, "w", encoding="utf-8") as file:
            status = subprocess.run(
                command, cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=timeout
            ).returncode
        output = log.read_text(encoding="utf-8", errors="replace")
        # verl looks for a free port and takes it a little later: another process may have been quicker.
        if status == 0 or "EADDRINUSE" not in output:
            break
    assert status == 0, f"{' '.join(command)} ended with {status}:\n{output[-6000:]}"
    return output
