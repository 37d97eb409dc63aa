"""The estimate of ``--preflight`` against what real runs took: the memory of the actor, at two sizes of a model."""

import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO
from hydra import compose, initialize_config_dir
from test_training import TRAIN
from transformers import AutoTokenizer

from data_preprocess.tiny_model import make_model
from recipe.critique_grpo.startup.memory import GIB, estimate
from recipe.critique_grpo.startup.preflight import needed_cpus

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
CONFIG = REPO / "recipe/critique_grpo/config"


def actors() -> list[Path]:
    """Folders in /proc of verl's actor workers, which Ray names so."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::WorkerDict"):
                found.append(folder)
        except OSError:
            continue  # it has ended
    return found


def peak_of_actor(command: list[str], log: Path, environment: dict[str, str]) -> float:
    """The most memory that the run's actor has had, in bytes."""
    before, peak, deadline = set(actors()), 0, time.monotonic() + 600
    with open(log, "w", encoding="utf-8") as file:
        run = subprocess.Popen(command, cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT)
        while run.poll() is None and time.monotonic() < deadline:
            for folder in set(actors()) - before:
                try:
                    lines = (folder / "status").read_text().splitlines()
                except OSError:
                    continue
                peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.5)
        run.terminate()
    assert run.wait() == 0, log.read_text()[-6000:]
    return float(peak)


@pytest.mark.parametrize(("hidden", "layers"), [(384, 6), (768, 12)])
def test_the_actor_takes_the_memory_that_was_estimated(
    tmp_path: Path, smollm2: Path, problems: Path, cpu_environment: dict[str, str], hidden: int, layers: int
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    make_model(tokenizer, hidden_size=hidden, num_layers=layers).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    overrides = [
        "tier=cpu",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "data.train_batch_size=4",
        "data.max_prompt_length=72",
        "data.max_response_length=8",
        "critique_grpo.refinement.max_prompt_length=320",
        "critique_grpo.skip.zero_advantage=never",  # a random model has no advantages, and is to be computed
        f"actor_rollout_ref.model.path={tmp_path}/model",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
        "actor_rollout_ref.rollout.max_model_len=384",
        "critique_grpo.refinement.num=0",
        "actor_rollout_ref.actor.ppo_epochs=2",  # Adam's moments come with the first
        "trainer.total_training_steps=1",
        "trainer.val_before_train=false",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        f"hydra.run.dir={tmp_path}/hydra",
    ]
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("critique_grpo_trainer", overrides=overrides[:-1])
    expected = estimate(config, None).peak.total
    cpus = f"ray_kwargs.ray_init.num_cpus={needed_cpus(config)}"  # as many logical ones as preflight says are needed
    measured = peak_of_actor([*TRAIN, *overrides, cpus], tmp_path / "run.log", cpu_environment)
    print(f"hidden {hidden}, layers {layers}: estimated {expected / GIB:.2f} GiB, measured {measured / GIB:.2f}")
    assert expected == pytest.approx(measured, rel=0.2)
