"""Run the study: build data and model, then train every method with every seed, many runs in one start.

    python -m recipe.critique_grpo.study.run --out outputs/study --methods GRPO indicative_gt --seeds 0 1 2

Finished runs are kept, so an interrupted study goes on. ``report.py`` reports on them.
"""

import argparse
import json
import random
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
import yaml

from recipe.critique_grpo.study import critics, problems, warm_start
from recipe.critique_grpo.study.final import FINAL, evaluate
from recipe.critique_grpo.study.methods import CRITICS, HEADLINE, METHODS
from recipe.critique_grpo.trainer.in_turn import InTurnTrainer, train_in_turn
from recipe.critique_grpo.trainer.runner import run_task
from verl_ext.chat_server import MODEL, chat_server

TRAINED, HELD_OUT = 512, 256
"""Problems of each family."""
PROMPTS, SAMPLES = 16, 8
ROWS = PROMPTS * SAMPLES
"""Of an update."""


def write_data(folder: Path, seed: int = 0) -> None:
    """train.parquet (both families, mixed), val.parquet (held out, both), templates.yaml."""
    rng = random.Random(seed)
    train, held_out = [], []
    for family, operation in (("easy", problems.EASY), ("hard", problems.HARD)):
        trained = problems.distinct(operation, TRAINED, rng)
        train += problems.rows(trained, family)
        held_out += problems.rows(problems.distinct(operation, HELD_OUT, rng, frozenset(trained)), family)
    rng.shuffle(train)
    write_files(folder, train, held_out, {**problems.TEMPLATES, **critics.CRITIC_TEMPLATES})


def write_files(
    folder: Path, train: list[dict[str, Any]], held_out: list[dict[str, Any]], templates: dict[str, str]
) -> None:
    """What runs read: two files of verl's parquet rows, and the wording of critiques."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(train).to_parquet(folder / "train.parquet")
    pd.DataFrame(held_out).to_parquet(folder / "val.parquet")
    (folder / "templates.yaml").write_text(yaml.safe_dump(templates), encoding="utf-8")


def common(folder: Path, steps: int, every: int, teacher: str = "") -> list[str]:
    """Overrides of all runs. ``teacher``: its address; then prompts have the room that written critiques need."""
    prompt, refinement, model = (40, 88, 128) if teacher else (16, 48, 96)
    asked = [
        f"critique_grpo.judge.base_url='{teacher}'",
        f"critique_grpo.judge.model={MODEL}",
        "critique_grpo.critique.max_tokens=16",
    ]
    return [
        "tier=cpu",
        f"data.train_files='{folder}/data/train.parquet'",
        f"data.val_files='{folder}/data/val.parquet'",
        f"data.train_batch_size={PROMPTS}",
        f"data.max_prompt_length={prompt}",
        f"critique_grpo.refinement.max_prompt_length={refinement}",
        f"actor_rollout_ref.rollout.max_model_len={model}",
        *(asked if teacher else ()),
        "data.max_response_length=20",
        f"critique_grpo.critique.templates='{folder}/data/templates.yaml'",
        f"actor_rollout_ref.model.path='{folder}/model'",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
        "actor_rollout_ref.actor.optim.lr=3e-4",
        "actor_rollout_ref.actor.optim.weight_decay=0.0",
        f"actor_rollout_ref.rollout.n={SAMPLES}",
        "actor_rollout_ref.rollout.max_num_seqs=256",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1000",
        f"trainer.test_freq={every}",
        "trainer.val_before_train=true",
        "trainer.save_freq=-1",
        "trainer.logger=[file]",
    ]


def seeded(seed: int) -> list[str]:
    """Order of the data, every sample, every choice among refinements."""
    return [f"data.seed={seed}", f"critique_grpo.seed={seed}"]


class StudyTrainer(InTurnTrainer):
    """Measures every run's last weights on the held-out problems; keeps what was measured, and not the weights."""

    def end(self, folder: Path) -> None:
        last = folder / "last"
        self.actor_rollout_wg.save_checkpoint(str(last), None, 0, None)
        start = Path(self.config.actor_rollout_ref.model.path)
        found = evaluate(last / "huggingface", Path(self.config.data.val_files), start)
        (folder / FINAL).write_text(json.dumps(found) + "\n", encoding="utf-8")
        shutil.rmtree(last)


@ray.remote
class StudyRunner:
    """verl's task runner with this trainer."""

    def run(self, config: Any) -> None:
        """Train in this actor."""
        run_task(config, StudyTrainer)


def main() -> None:
    """Command line of ``scripts/study.sh``."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data, model and runs")
    parser.add_argument("--methods", nargs="+", default=list(HEADLINE), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--warm_start", type=int, default=0, help="seed of the model that is built, unless it is there")
    parser.add_argument("--critics", action="store_true", help=f"build a model for {', '.join(CRITICS)}")
    parser.add_argument("--steps", type=int, default=100, help="updates of each run")
    parser.add_argument("--every", type=int, default=20, help="updates between validations")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of all runs")
    arguments = parser.parse_args()
    out, seed, with_critics = arguments.out.absolute(), arguments.warm_start, arguments.critics
    if not with_critics and (unpractised := [name for name in arguments.methods if name in CRITICS]):
        parser.error(f"{unpractised[0]} needs a model that has practised it: --critics, and an --out of its own")
    if not (out / "data" / "val.parquet").exists():
        write_data(out / "data")
    if not (out / "model" / "warm_start.json").exists():
        facts = warm_start.build(out / "model", seed=seed, with_critics=with_critics)
        print(json.dumps(facts, indent=1), flush=True)
    facts = json.loads((out / "model" / "warm_start.json").read_text(encoding="utf-8"))
    if (built := facts["seed"]) != seed:
        parser.error(f"{out}/model is the warm start of seed {built}, not {seed}: name another --out")
    if facts.get("critics", False) != with_critics:
        parser.error(f"{out}/model was built {'without' if with_critics else 'with'} --critics: name another --out")
    runs = {f"{name}/{one}": [*METHODS[name], *seeded(one)] for one in arguments.seeds for name in arguments.methods}
    with ExitStack() as stack:
        teacher = stack.enter_context(chat_server(critics.teach)) if with_critics else ""
        settings = [*common(out, arguments.steps, arguments.every, teacher), *arguments.overrides]
        train_in_turn(settings, runs, out / "runs", StudyRunner)


if __name__ == "__main__":
    main()
