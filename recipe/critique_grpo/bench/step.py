"""Compare a training step with verl's own GRPO step, and each saving by itself, in alternating rounds of one start;
or the options of the family with the default (``--designs family``).

    python -m recipe.critique_grpo.bench.step --model MODEL --data train.parquet --out outputs/bench_step

A round takes one step with every design, from the same weights on the same data, so all of them sample the same.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

import ray
from verl import DataProto

from recipe.critique_grpo.study.methods import STRICT
from recipe.critique_grpo.trainer.in_turn import VERLS_GRPO, InTurnTrainer, train_in_turn
from recipe.critique_grpo.trainer.runner import run_task

NO_OLD, NO_DEAD = "critique_grpo.skip.old_log_prob=never", "critique_grpo.skip.zero_advantage=never"
ALWAYS = ["critique_grpo.refinement.trigger=always"]
ROW_BY_ROW = "nothing saved"
"""The design whose prompts are not shared either: verl's own engine."""
SAVINGS: dict[str, list[str]] = {
    "verl's GRPO": VERLS_GRPO,
    ROW_BY_ROW: [NO_OLD, NO_DEAD],
    "shared prompts alone": [NO_OLD, NO_DEAD],
    "and no old log-probs": [NO_DEAD],
    "and no rows without advantage": [NO_OLD],
    "all savings": [],
    "all savings, trigger always": ALWAYS,
}
"""On a CPU verl's GRPO shares prompts too. The third to fifth: on top of shared prompts, each of the others alone."""
SOME = ["critique_grpo.refinement.trigger=some_failed"]
SELF = ["critique_grpo.critique.type=self", "critique_grpo.critique.max_tokens=16", *STRICT]
FAMILY: dict[str, list[str]] = {
    "default": [],
    "trigger=always": ALWAYS,
    "show_response=false": ["critique_grpo.refinement.show_response=false"],
    "shaping=calibrated": ["critique_grpo.loss.shaping=calibrated"],
    "ema_std_decay=0.99": ["critique_grpo.advantage.ema_std_decay=0.99"],
    "distil_coef=0.1": ["critique_grpo.advantage.distil_coef=0.1"],
    "type=peers, trigger=some_failed": ["critique_grpo.critique.type=peers", *SOME],
    "type=indicative_gt, trigger=some_failed": SOME,
    "type=self": SELF,
    "type=self, roles.critic.rows=2": [*SELF, "critique_grpo.roles.critic.rows=2"],
    "roles.refiner.rows=2": ["critique_grpo.roles.refiner.rows=2"],
}
"""Options of the family (docs/family.md), each beside what it is to be compared with."""
DESIGNS = {"savings": SAVINGS, "family": FAMILY}
"""The first of each is what the others are compared with."""
STAGES = {
    "rollout": "timing_s/gen",
    "old log-probs": "timing_s/old_log_prob",
    "update": "timing_s/update_actor",
    "weight sync": "timing_s/update_weights",
    "step": "timing_s/step",
}


class StepTrainer(InTurnTrainer):
    """Computes rows one by one in the design that says so, and counts the tokens that an update computes."""

    _computed = 0

    def _compute_old_log_prob(self, batch: DataProto) -> tuple[DataProto, float]:
        if self._row_by_row:  # with micro-batches as the quickstart had them then
            batch.meta_info |= {"share_prompts": False, "max_token_len_per_gpu": 2048}
        return super()._compute_old_log_prob(batch)

    def _update_actor(self, batch: DataProto) -> DataProto:
        self._computed = self._tokens(batch)
        output = super()._update_actor(batch)
        output.meta_info["metrics"]["bench/update_tokens"] = self._computed
        return output

    def _needed_rows(self, batch: DataProto) -> DataProto:
        rows = super()._needed_rows(batch)
        self._computed = self._tokens(rows)
        return rows

    @property
    def _row_by_row(self) -> bool:
        return self.run_name.endswith(ROW_BY_ROW)

    def _tokens(self, batch: DataProto) -> int:
        tokens = batch.batch["attention_mask"].sum(-1)
        if self._row_by_row:
            return int(tokens.sum())
        responses = batch.batch["response_mask"].sum(-1)
        prompts = dict(zip(map(tuple, batch.batch["prompts"].tolist()), (tokens - responses).tolist(), strict=True))
        return sum(prompts.values()) + int(responses.sum())


@ray.remote
class StepRunner:
    """verl's task runner with this trainer."""

    def run(self, config: Any) -> None:
        """Train in this actor."""
        run_task(config, StepTrainer)


def measure(
    designs: Mapping[str, list[str]], model: Path, data: Path, out: Path, rounds: int, settings: Sequence[str]
) -> None:
    """Train every design in every round; each leaves its metrics in ``out``."""
    common = [
        "tier=cpu",
        f"data.train_files='{data}'",
        f"data.val_files='{data}'",
        "critique_grpo.check_data=false",
        f"actor_rollout_ref.model.path='{model}'",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.rollout.n=8",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.logger=[file]",
        *settings,
    ]
    # The first step of a process finds its memory and caches cold, and does not count.
    runs: dict[str, Any] = {"cold": []}
    runs |= {f"{number} {name}": overrides for number in range(rounds) for name, overrides in designs.items()}
    train_in_turn(common, runs, out, StepRunner)


def seconds(designs: Iterable[str], out: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """By design, for each round: the seconds of each stage, and which share of rows and groups they are about."""
    found: dict[str, list[dict[str, float]]] = {}
    for name in designs:
        for number in range(rounds):
            metrics = out / f"{number} {name}" / "metrics.jsonl"
            data = json.loads(metrics.read_text(encoding="utf-8").splitlines()[0])["data"]
            row = {stage: data.get(metric, float("nan")) for stage, metric in STAGES.items()}
            row["tokens updated"] = data.get("bench/update_tokens", float("nan"))
            row["tokens generated"] = sum(
                data.get(f"critique_grpo/tokens/{stage}", 0.0) for stage in ("sample", "critique", "refine")
            )
            row["dead rows"] = data.get("critique_grpo/zero_advantage_fraction", 0.0)
            row["refined groups"] = data.get("critique_grpo/trigger_rate", 0.0)
            found.setdefault(name, []).append(row)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]], base: str) -> Iterable[str]:
    """A Markdown table: medians of the seconds, and of the ratio to ``base`` in the same round with its range."""
    yield f"| seconds | {' | '.join(STAGES)} | ratio to {base} | range | tokens generated | tokens updated |"
    yield "|---|" + "---|" * (len(STAGES) + 4)
    for name, rows in found.items():
        ratios = [row["step"] / other["step"] for row, other in zip(rows, found[base], strict=True)]
        times = (median(row[stage] for row in rows) for stage in STAGES)
        cells = " | ".join("-" if isnan(took) else f"{took:.1f}" for took in times)
        tokens = " | ".join(f"{rows[-1][kind]:.0f}" for kind in ("tokens generated", "tokens updated"))
        yield f"| {name} | {cells} | {median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} | {tokens} |"


def arithmetic(prompt: float, response: float, dead: float, *, n: int = 8) -> dict[str, float]:
    """Forward and backward passes over tokens for one row of a 7B model's step, by method; a unit is a pass.

    A forward pass over a token costs 1, a backward pass 2. Of all groups ``dead`` are without gradient. On a GPU
    prompts are not shared. What is sampled costs the same in all methods but for refinements, which are left out here.
    """
    tokens = prompt + response
    grpo = tokens + 3 * tokens
    return {
        "verl's GRPO": 1.0,
        "no old log-probs": 3 * tokens / grpo,
        "no dead rows": (tokens + 3 * tokens * (1 - dead)) / grpo,
        "both": 3 * tokens * (1 - dead) / grpo,
    }


def head(found: Mapping[str, Sequence[Mapping[str, float]]], name: str, base: str) -> list[str]:
    """The measured table; what its batch was like, by a design that refines."""
    ours = found[name][0]
    return [
        f"{len(found[name])} alternating rounds; {ours['dead rows']:.0%} of the rows have no advantage, "
        f"{ours['refined groups']:.0%} of the groups are refined.",
        "",
        *table(found, base),
        "",
    ]


def counted() -> list[str]:
    """What savings mean for a 7B model, by counting."""
    lines = [
        "Log-probs and update of a 7B model, prompts of 200 and responses of 2000 tokens, by counting tokens "
        "(forward 1, backward 2; one mini-batch a step), as a ratio to verl's GRPO:",
        "",
        "| groups without gradient | no old log-probs | no dead rows | both |",
        "|---|---|---|---|",
    ]
    for dead in (0.2, 0.4, 0.6):
        shares = arithmetic(200, 2000, dead)
        lines.append(f"| {dead:.0%} | " + " | ".join(f"{value:.2f}" for value in list(shares.values())[1:]) + " |")
    return [*lines, ""]


def main() -> None:
    """Command line of ``scripts/bench_step.sh``."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="parquet file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; finished runs are kept")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds")
    parser.add_argument("--designs", choices=list(DESIGNS), default="savings", help="what is compared")
    parser.add_argument("settings", nargs="*", help="Hydra overrides of all designs: batch, lengths")
    arguments = parser.parse_args()
    out, rounds, designs = arguments.out, arguments.rounds, DESIGNS[arguments.designs]
    base = next(iter(designs))
    measure(designs, arguments.model, arguments.data, out, rounds, arguments.settings)
    found = seconds(designs, out, rounds)
    (out / "step.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    savings = designs is SAVINGS
    lines = head(found, "all savings" if savings else base, base) + (counted() if savings else [])
    text = "\n".join(lines)
    (out / "step.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
