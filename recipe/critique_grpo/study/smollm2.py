r"""The study's confirmation on a real language model, SmolLM2-135M-Instruct, with an operation that it cannot know.

    python -m recipe.critique_grpo.study.smollm2 --model outputs/smollm2 --out outputs/study_smollm2

``59 + 6`` is easy, in that some samples solve it. ``59 @ 6`` is 659, the second number before the first one, which
nothing tells but a critique. Both are asked for in the same prompt, with a worked sum. Finished runs are kept.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipe.critique_grpo.study.methods import HEADLINE, METHODS
from recipe.critique_grpo.study.report import WRITTEN, percent, picture
from recipe.critique_grpo.study.results import FAMILIES, SHOWN, Result, read_run, to_json
from recipe.critique_grpo.study.run import seeded, write_files
from recipe.critique_grpo.trainer.in_turn import finished, train_in_turn

OPERATIONS = {"easy": "+", "hard": "@"}
TRAINED, HELD_OUT = 512, 128
"""Problems of each family."""
PROMPTS, SAMPLES = 8, 8
EXAMPLE = "98 + 7"
PAIRS = [(x, y) for x in range(10, 98) for y in range(1, 10) if x != 11 * y]
"""Numbers of the problems: no other operation on two of them gives a hard answer, not even the first one first."""
INSTRUCTION = r"Put the final answer in \boxed{}."
TEMPLATES = {
    "refinement": "{question}\n{critique}",
    "indicative_gt_wrong": r"The answer is {ground_truth}. Write it like this: {question} = \boxed{{{ground_truth}}}",
}
"""``critique_grpo.critique.templates``: a model of this size copies a solution's form, and is not told how else."""


def solution(question: str) -> str:
    """A right solution."""
    return rf"{question} = \boxed{{{answer(question)}}}"


def answer(question: str) -> str:
    """Of ``59 + 6`` or ``59 @ 6``."""
    first, operation, second = question.split()
    return second + first if operation == OPERATIONS["hard"] else str(int(first) + int(second))


def rows(questions: list[str], family: str) -> list[dict[str, Any]]:
    """verl's parquet rows; validation reports a family by its data source."""
    shown = [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": EXAMPLE},
        {"role": "assistant", "content": solution(EXAMPLE)},
    ]
    return [
        {
            "data_source": f"study/{family}",
            "prompt": [*shown, {"role": "user", "content": question}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": answer(question)},
            "extra_info": {"index": f"{family}-{number}", "split": family},
        }
        for number, question in enumerate(questions)
    ]


def write_data(folder: Path, seed: int = 0) -> None:
    """train.parquet (both families, mixed), val.parquet (held out, both), templates.yaml."""
    rng = random.Random(seed)
    train, held_out = [], []
    for family, operation in OPERATIONS.items():
        pairs = rng.sample(PAIRS, TRAINED + HELD_OUT)
        questions = [f"{x} {operation} {y}" for x, y in pairs]
        train += rows(questions[:TRAINED], family)
        held_out += rows(questions[TRAINED:], family)
    rng.shuffle(train)
    write_files(folder, train, held_out, TEMPLATES)


def common(folder: Path, model: Path, steps: int, every: int) -> list[str]:
    """Overrides of all runs."""
    return [
        "tier=cpu",
        f"data.train_files='{folder}/data/train.parquet'",
        f"data.val_files='{folder}/data/val.parquet'",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=72",
        "data.max_response_length=20",
        f"critique_grpo.critique.templates='{folder}/data/templates.yaml'",
        "critique_grpo.refinement.max_prompt_length=160",
        f"actor_rollout_ref.model.path='{model}'",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
        "actor_rollout_ref.actor.optim.lr=5e-5",
        f"actor_rollout_ref.rollout.n={SAMPLES}",
        "actor_rollout_ref.rollout.temperature=0.8",
        "actor_rollout_ref.rollout.max_model_len=192",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1000",
        f"trainer.test_freq={every}",
        "trainer.val_before_train=true",
        "trainer.logger=[file]",
    ]


def read(out: Path) -> list[Result]:
    """All finished runs, in the order of ``METHODS``."""
    folders = (run for method in METHODS for run in sorted((out / "runs" / method).glob("*")))
    return [read_run(run, PROMPTS * SAMPLES) for run in folders if finished(run)]


def table(runs: Sequence[Result]) -> Iterator[list[str]]:
    """The head and a row for each run: accuracy on held-out problems, and what happened in training."""
    means = ("refinements correct %", "groups refined %", "10% quantile of p", "seconds an update")
    accuracies = [f"{family}, greedy, by update %" for family in FAMILIES]
    yield ["method", "seed", *accuracies, *means, "tokens generated"]
    for run in runs:
        seen = [[f"{step}: {100 * value:.1f}" for step, value in run.accuracy(family).items()] for family in FAMILIES]
        values = [(title, run.mean_of(SHOWN[title])) for title in means]
        cells = ["-" if value is None else WRITTEN.get(title, percent)(value) for title, value in values]
        yield [run.method, str(run.seed), *map(", ".join, seen), *cells, f"{run.tokens:.0f}"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs, smollm2.json and .svg")
    parser.add_argument("--model", type=Path, required=True, help="what data_preprocess.smollm2 has built")
    parser.add_argument("--methods", nargs="+", default=list(HEADLINE), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20, help="updates of each run")
    parser.add_argument("--every", type=int, default=5, help="updates between validations")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of all runs")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    if not (out / "data" / "val.parquet").exists():
        write_data(out / "data")
    settings = common(out, arguments.model.absolute(), arguments.steps, arguments.every)
    runs = {f"{name}/{one}": [*METHODS[name], *seeded(one)] for one in arguments.seeds for name in arguments.methods}
    train_in_turn([*settings, *arguments.overrides], runs, out / "runs")
    done = read(out)
    (out / "smollm2.json").write_text(json.dumps([to_json(run) for run in done]) + "\n", encoding="utf-8")
    methods = dict.fromkeys(run.method for run in done)  # a run that failed is not among them
    picture({name: [run for run in done if run.method == name] for name in methods}, out / "smollm2.svg")
    for row in table(done):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
