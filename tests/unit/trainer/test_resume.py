"""Going on at the end of an epoch, and after the last step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.utils import create_rl_sampler

from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.trainer.advantage_shaping import AdvantageShaping
from recipe.critique_grpo.trainer.ending import TrainingFinished
from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer, try_to_dump

pytestmark = pytest.mark.unit
ROWS, BATCH = 14, 4  # three steps an epoch, two rows left over


def loader(shuffle: bool = True, workers: int = 0) -> StatefulDataLoader[Any]:
    """verl's data loader with verl's sampler."""
    sampler = create_rl_sampler(SimpleNamespace(shuffle=shuffle, get=lambda name: 5), range(ROWS))  # type: ignore[arg-type]
    return StatefulDataLoader(range(ROWS), BATCH, sampler=sampler, drop_last=True, num_workers=workers)  # type: ignore[arg-type]


def epochs(data: StatefulDataLoader[Any], count: int) -> list[list[list[int]]]:
    return [[batch.tolist() for batch in data] for _ in range(count)]


def resumed(monkeypatch: pytest.MonkeyPatch, step: int, total: int = 99, workers: int = 0, **changes: Any) -> Any:
    """A trainer that has loaded the checkpoint of a step, as far as verl's own code goes on a whole epoch."""
    trainer = object.__new__(RayCritiqueGRPOTrainer)
    trainer.train_dataloader, trainer.total_training_steps = loader(workers=workers), total
    trainer.shape_advantages = AdvantageShaping(CritiqueGRPOConfig())
    folder = SimpleNamespace(val_only=False, default_local_dir="run", **changes)
    trainer.config = SimpleNamespace(trainer=folder)
    monkeypatch.setattr(RayPPOTrainer, "_load_checkpoint", lambda self: setattr(self, "global_steps", step))
    trainer._load_checkpoint()
    return trainer


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 2, 3])
def test_an_epoch_after_a_resume_has_its_own_order(monkeypatch: pytest.MonkeyPatch, done: int, workers: int) -> None:
    order = epochs(loader(workers=workers), 5)
    assert order[0] != order[1], "each epoch has its own"
    trainer = resumed(monkeypatch, step=3 * done, workers=workers)
    assert epochs(trainer.train_dataloader, 5 - done) == order[done:]


def test_a_start_from_nothing_begins_with_the_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert epochs(resumed(monkeypatch, step=0).train_dataloader, 1) == epochs(loader(), 1)


def test_a_finished_run_trains_no_step_beyond_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingFinished, match="step 7 of 7 is in run.*raise trainer.total_epochs"):
        resumed(monkeypatch, step=7, total=7)
    assert resumed(monkeypatch, step=6, total=7).global_steps == 6


@pytest.mark.parametrize(("asked", "steps", "said"), [(7, 6, True), (6, 6, False), (4, 4, False)])
def test_the_last_step_of_the_epochs_is_the_last_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: int, steps: int, said: bool
) -> None:
    def as_verl_does(self: Any) -> None:
        self.train_dataloader, self.total_training_steps = loader(), asked

    monkeypatch.setattr(RayPPOTrainer, "_create_dataloader", as_verl_does)
    trainer = object.__new__(RayCritiqueGRPOTrainer)
    trainer.config = SimpleNamespace(trainer=SimpleNamespace(total_epochs=2))
    trainer._create_dataloader()
    assert trainer.total_training_steps == steps
    assert ("total_epochs ends after 6 of 7 steps" in capsys.readouterr().out) == said


def test_a_dump_that_cannot_be_written_is_told_and_costs_no_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    try_to_dump([], {}, str, str(tmp_path / "file"), 3)
    assert f"step 3 has no rollout dump in {tmp_path / 'file'}" in capsys.readouterr().out
    try_to_dump([], {}, str, str(tmp_path / "folder"), 3)
    assert (tmp_path / "folder/3.jsonl").exists()
