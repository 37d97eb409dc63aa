"""Build the study's model: a small Llama that has practised ``-``, ``<`` and ``>``, and to refine under a critique.

    python -m recipe.critique_grpo.study.warm_start --out outputs/study/model [--critics]

With ``--critics`` it has practised critiques too, that a teacher, a peer or the policy writes (``critics.py``). Writes
the model folder, and ``warm_start.json`` beside it: what was practised, that nothing hard was, how often the model
solves either family, and the probability that it gives the right tokens of a hard solution.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipe.critique_grpo.reward import compute_score, is_correct
from recipe.critique_grpo.study import critics
from recipe.critique_grpo.study.practice import Conversation, practice, said
from recipe.critique_grpo.study.problems import DIGITS, EASY, HARD, PRACTISED, TEMPLATES, Problem, draw, tokenizer

STEPS, CRITICS_STEPS, ROWS, RATE = 500, 1000, 96, 2e-3


def build_model(words: Any, seed: int) -> nn.Module:
    """1.9M parameters; heads as wide as vLLM wants them on a CPU. (A Qwen2 gets transformers' own tokenizer.)"""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def encode(words: Any, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Tokens, and which of them are learned: those of the last turn."""
    before = words.apply_chat_template(conversation[:-1], add_generation_prompt=True, tokenize=False)
    whole = words.apply_chat_template(conversation, tokenize=False)
    given, tokens = words.encode(before, add_special_tokens=False), words.encode(whole, add_special_tokens=False)
    return tokens, [0] * len(given) + [1] * (len(tokens) - len(given))


def train(model: nn.Module, words: Any, source: Iterator[Conversation], steps: int) -> list[str]:
    """Supervised practice; returns every question that was practised."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    questions = []
    for step in range(steps):
        chosen = [next(source) for _ in range(ROWS)]
        questions += [conversation[0]["content"] for conversation in chosen]
        encoded = [encode(words, conversation) for conversation in chosen]
        longest = max(len(tokens) for tokens, _ in encoded)
        tokens = torch.tensor([one + [words.pad_token_id] * (longest - len(one)) for one, _ in encoded])
        learned = torch.tensor([one + [0] * (longest - len(one)) for _, one in encoded])[:, 1:]
        logits = model(input_ids=tokens).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        loss = (losses * learned).sum() / learned.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"warm start: step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)
    return questions


def right_answers(
    model: nn.Module, words: Any, questions: Sequence[str], answers: Sequence[str], samples: int = 0
) -> Tensor:
    """(problems, samples) bool: which answers are right, of so many samples (temperature 1), or greedily, of one.

    By the grader of the training, which asks nothing of what follows the box.
    """
    each = max(1, samples)
    texts = written(model, words, [[said("user", one)] for one in questions for _ in range(each)], samples > 0)
    wanted = [answer for answer in answers for _ in range(each)]
    right = [is_correct(float(compute_score("study", *one)["score"])) for one in zip(texts, wanted, strict=True)]
    return torch.tensor(right).view(len(questions), each)


def solved(model: nn.Module, words: Any, problems: list[Problem], samples: int = 0) -> float:
    """Share of the problems that are solved greedily, or by at least one of so many samples."""
    questions, answers = [problem.question for problem in problems], [problem.answer for problem in problems]
    return right_answers(model, words, questions, answers, samples).any(dim=1).float().mean().item()


def refined(
    solver: nn.Module, words: Any, questions: Sequence[str], answers: Sequence[str], critic: nn.Module | None = None
) -> float:
    """Share of the problems that are solved in a second attempt, told the answer, or, if there is a critic, under a
    critique of the first attempt that it samples (the attempts are greedy)."""
    first = written(solver, words, [[said("user", question)] for question in questions], False)
    if critic is None:
        told = [TEMPLATES["indicative_gt_wrong"].format(ground_truth=answer) for answer in answers]
    else:
        asked = [
            critics.CRITIC_TEMPLATES["cot_reference"].format(question=question, response=text, ground_truth=answer)
            for question, text, answer in zip(questions, first, answers, strict=True)
        ]
        told = written(critic, words, [[said("user", request)] for request in asked], True)
    prompts = [
        [said("user", question), said("assistant", text), said("user", critique)]
        for question, text, critique in zip(questions, first, told, strict=True)
    ]
    second = written(solver, words, prompts, False)
    return sum(f"{{{answer}}}" in text for answer, text in zip(answers, second, strict=True)) / len(questions)


@torch.no_grad()
def written(model: nn.Module, words: Any, prompts: Sequence[Conversation], sample: bool) -> list[str]:
    """What the model answers."""
    told = [words.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    given = words(told, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    settings: dict[str, Any] = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
    settings |= {"attention_mask": given["attention_mask"], "max_new_tokens": 5 * DIGITS + 2}
    output = model.generate(given["input_ids"], **settings)  # type: ignore[operator]
    return words.batch_decode(output[:, given["input_ids"].shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def right_token_probabilities(model: nn.Module, words: Any, problems: list[Problem]) -> Tensor:
    """What the model gives the results of the steps of right solutions: (problems x DIGITS,), ascending."""
    found = []
    for problem in problems:
        tokens, learned = encode(words, [said("user", problem.question), said("assistant", problem.solution())])
        logits = model(input_ids=torch.tensor([tokens])).logits[0, :-1]
        chances = logits.softmax(-1).gather(1, torch.tensor(tokens[1:]).unsqueeze(1)).squeeze(1)
        start = learned.index(1) - 1
        found += [chances[start + 3 * digit + 2] for digit in range(DIGITS)]
    return torch.stack(found).sort().values


def build(out: Path, seed: int, steps: int | None = None, with_critics: bool = False) -> dict[str, Any]:
    """Train, measure, prove that nothing hard was practised, write; returns what ``warm_start.json`` holds."""
    words = tokenizer(critics.WORDS if with_critics else ())
    model = build_model(words, seed)
    source = critics.practise_critics if with_critics else practice
    steps = steps or (CRITICS_STEPS if with_critics else STEPS)
    practised = train(model, words, source(random.Random(seed)), steps)
    hard_practised = sum(HARD in question for question in practised)
    assert not hard_practised, "the warm start has practised what it must not"
    model.eval()
    with torch.no_grad():  # never seen; without a meaning of its own yet, but one of an operation
        embeddings = model.get_input_embeddings().weight  # type: ignore[operator]
        embeddings[words.convert_tokens_to_ids(HARD)] = embeddings[words.convert_tokens_to_ids(list(PRACTISED))].mean(0)
    rng = random.Random(seed + 1)
    easy, hard = ([draw(operation, rng) for _ in range(256)] for operation in (EASY, HARD))
    chances = right_token_probabilities(model, words, hard[:64])
    questions, answers = [problem.question for problem in hard], [problem.answer for problem in hard]
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "steps": steps,
        "critics": with_critics,
        "questions practised": len(practised),
        f"questions practised with {HARD}": hard_practised,
        "easy, greedy": solved(model, words, easy),
        "hard, greedy": solved(model, words, hard),
        "easy, pass@64 (64 problems)": solved(model, words, easy[:64], 64),
        "hard, refined under the answer, greedy": refined(model, words, questions, answers),
        "hard, pass@64 (64 problems)": solved(model, words, hard[:64], 64),
        "probability of a right hard digit, quantiles 10%, 50%, 90%": [
            float(chances.quantile(q)) for q in (0.1, 0.5, 0.9)
        ],
    }
    if with_critics:
        facts["hard, refined under its own sampled critique, greedy"] = refined(model, words, questions, answers, model)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    words.save_pretrained(out)
    (out / "warm_start.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}, with critics {CRITICS_STEPS}")
    parser.add_argument("--critics", action="store_true", help="practise critiques of others and its own")
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.out, arguments.seed, arguments.steps, arguments.critics), indent=1))


if __name__ == "__main__":
    main()
