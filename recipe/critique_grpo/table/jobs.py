"""The rows of the table as jobs: commands as a user would run them, in an order in which each finds what it needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.critique_grpo.table.cost import Cost, evaluate, finetune, model_bytes, train

BASE = "untrained"
PRESETS = {
    "R1-GRPO": ("PRESET=grpo",),
    "R1-Dr.GRPO": ("PRESET=dr_grpo",),
    "LUFFY": ("PRESET=luffy",),
    "Critique-GRPO (indicative)": ("PRESET=default", "CRITIQUE=indicative"),
    "Critique-GRPO (indicative with ground truth)": ("PRESET=default", "CRITIQUE=indicative_gt"),
    "Critique-GRPO (CoT)": ("PRESET=default", "CRITIQUE=cot"),
}
"""Rows that one training run makes: what ``scripts/models/<model>.sh`` is told."""
FINETUNED = {
    "SFT": "sft",
    "RAFT": "raft",
    "Refinement FT": "refinement_ft",
    "Critique FT": "critique_ft",
    "CITL-FT": "citl_ft",
}
"""Rows of ``scripts/baselines/finetune.sh``; all but SFT share one collection with critiques of a judge."""
SEQUENTIAL, FIRST = "R1-GRPO + Refinement FT", "R1-GRPO"
ROWS = (BASE, *FINETUNED, FIRST, "R1-Dr.GRPO", "LUFFY", SEQUENTIAL, *list(PRESETS)[3:])
JUDGED = {"Critique-GRPO (CoT)", SEQUENTIAL, *FINETUNED} - {"SFT"}
"""Rows that need a judge."""


CONTEXT = "actor_rollout_ref.rollout.max_model_len="
EVALUATED = 2048 + 8192
"""Tokens of prompt and response in ``scripts/eval.sh``."""
ANSWERING = (
    "+data.apply_chat_template_kwargs",
    "data.apply_chat_template_kwargs",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=",
)
"""Settings of a model that its evaluation needs too: how it is asked, and on how many GPUs it fits."""


@dataclass(frozen=True)
class Table:
    """What the user has chosen.

    ``script``: a script of ``scripts/models`` without its ending; ``model``: what it trains; ``settings``: what the
    script sets (``--settings``). ``overrides``: of every training run. ``benches``: names, as ``scripts/eval.sh`` takes
    them.
    """

    script: str
    model: str
    train: str
    val: str
    benches: str
    out: Path
    overrides: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def context(self) -> int | None:
        """Tokens of prompt and response together, where the script says so."""
        found = [one for one in (*self.settings, *self.overrides) if one.startswith(CONTEXT)]
        return int(found[-1].removeprefix(CONTEXT)) if found else None


@dataclass(frozen=True)
class Job:
    """One command; ``name`` is also that of its log, and of the mark that it is done."""

    name: str
    command: tuple[str, ...]
    cost: Cost

    @property
    def environment(self) -> dict[str, str]:
        """The variables in front of the command."""
        return dict(part.split("=", 1) for part in self.command[: self._variables])

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command without them."""
        return self.command[self._variables :]

    @property
    def _variables(self) -> int:
        return self.command.index("bash")


def jobs_of(table: Table, rows: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """The jobs of these rows, in the order of the table, each once; a row's runs of several seeds follow each other."""
    jobs: list[Job] = []
    for row in ROWS:
        if row not in rows and not (row == FIRST and SEQUENTIAL in rows):
            continue
        for seed in seeds if row != BASE else seeds[:1]:
            jobs += _row(table, row, seed)
    return jobs


def folder(out: Path, row: str, seed: int) -> Path:
    """Where a run of a row has its checkpoints, its model and its evaluation."""
    return out / slug(row) / str(seed)


def slug(row: str) -> str:
    """The row's name as that of a folder."""
    return re.sub("[^a-z0-9]+", "-", row.lower()).strip("-")


def _row(table: Table, row: str, seed: int) -> list[Job]:
    where = folder(table.out, row, seed)
    name = f"{slug(row)}.{seed}"
    model = table.model if row == BASE else str(where / "model")
    jobs = []
    if row in PRESETS:
        jobs.append(
            Job(
                f"{name}.train",
                _train(table, row, seed, where),
                train(table.script, row in JUDGED or "indicative" in row),
            )
        )
        export = ("bash", "scripts/export.sh", str(where / "run"), model)
        jobs.append(Job(f"{name}.export", export, Cost(0.0, model_bytes(table.script))))
    elif row != BASE:
        jobs.append(Job(f"{name}.finetune", _finetune(table, row, seed, where), finetune(table.script, row != "SFT")))
    jobs.append(Job(f"{name}.eval", _evaluate(table, model, where), evaluate(table.script)))
    return jobs


def _evaluate(table: Table, model: str, where: Path) -> tuple[str, ...]:
    """As ``scripts/eval.sh`` does it, within the model's context, and with the chat template it was trained with."""
    asked = [f"MODEL={model}", f"BENCHES={table.benches}", f"OUT={where / 'eval'}"]
    if table.context is not None and table.context < EVALUATED:
        asked += ["MAX_PROMPT=1024", f"MAX_RESPONSE={table.context - 1024}"]
    answering = [one for one in (*table.settings, *table.overrides) if one.startswith(ANSWERING)]
    return ("bash", "scripts/eval.sh", *asked, *answering)


def _train(table: Table, row: str, seed: int, where: Path) -> tuple[str, ...]:
    data = (f"MODEL={table.model}", f"TRAIN={table.train}", f"VAL={table.val}", f"OUT={where / 'run'}")
    # One checkpoint at a time; the last step is always saved.
    keep = ("trainer.max_actor_ckpt_to_keep=1", "trainer.save_freq=50", "trainer.test_freq=-1")
    seeds = (f"data.seed={seed}", f"critique_grpo.seed={seed}")
    return (*PRESETS[row], *data, "bash", f"scripts/models/{table.script}.sh", *keep, *seeds, *table.overrides)


def _finetune(table: Table, row: str, seed: int, where: Path) -> tuple[str, ...]:
    method = FINETUNED.get(row, "refinement_ft")
    start = table.model if row != SEQUENTIAL else str(folder(table.out, FIRST, seed) / "model")
    variables = [f"METHOD={method}", f"MODEL={start}", f"TRAIN={table.train}", f"VAL={table.val}", f"OUT={where}"]
    variables.append(f"SEED={seed}")
    if method == "sft":
        template = [one for one in (*table.settings, *table.overrides) if "data.apply_chat_template_kwargs." in one]
        variables += [f"COLLECT={' '.join(template)}"] * bool(template)
    else:
        shared = where if row == SEQUENTIAL else table.out / "collection" / str(seed)
        # Sampled as the other rows are, of which nothing but the training is left out.
        sampled = [one for one in (*table.settings, *table.overrides) if not one.startswith("trainer.")]
        variables += ["CRITIQUE=cot", f"ROLLOUTS={shared / 'rollouts'}", f"COLLECT={' '.join(sampled)}"]
    limits = () if table.context is None else (f"data.max_length={min(8192, table.context)}",)
    return (*variables, "bash", "scripts/baselines/finetune.sh", *limits)
