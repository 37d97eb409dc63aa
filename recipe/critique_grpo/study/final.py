"""What a run's last weights can do: every held-out problem greedily, and pass@k to 64 by sampling."""

from pathlib import Path
from typing import Any

import torch

from recipe.critique_grpo.evaluate.stats import pass_at_k
from recipe.critique_grpo.study.critics import WORDS
from recipe.critique_grpo.study.warm_start import refined, right_answers

FINAL = "final.json"
SAMPLES, SAMPLED = 64, 64
"""Samples a problem, and problems of each family that are sampled."""
KS = (1, 4, 16, 64)
HELPED = "refined by the warm start under its critiques"
"""What its critiques are good for: the warm start refines its own answers under them, so that only they differ."""


def evaluate(model: Path, held_out: Path, start: Path | None = None) -> dict[str, Any]:
    """
    Args:
        model: folder of the weights and the tokenizer.
        held_out: parquet file of ``run.py``.
        start: folder of the warm start.

    Returns:
        By family: ``greedy``, right or not on each problem in the file's order; ``pass@k`` of the first problems; of
        weights whose warm start had critics, the share of the problems that are ``HELPED``.
    """
    import pandas as pd
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).float().eval()
    solver = None
    if start is not None and WORDS[-1] in words.get_vocab():
        solver = AutoModelForCausalLM.from_pretrained(start).float().eval()
    rows = pd.read_parquet(held_out)
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    for source, family in rows.groupby("data_source", sort=True):
        questions = [prompt[0]["content"] for prompt in family["prompt"]]
        answers = [reward["ground_truth"] for reward in family["reward_model"]]
        greedy = right_answers(network, words, questions, answers)
        sampled = right_answers(network, words, questions[:SAMPLED], answers[:SAMPLED], SAMPLES)
        correct = sampled.sum(dim=1).tolist()
        found[str(source).removeprefix("study/")] = {
            "greedy": greedy[:, 0].tolist(),
            **{f"pass@{k}": sum(pass_at_k(SAMPLES, c, k) for c in correct) / len(correct) for k in KS},
        }
        if solver is not None:
            found[str(source).removeprefix("study/")][HELPED] = refined(solver, words, questions, answers, network)
    return found
