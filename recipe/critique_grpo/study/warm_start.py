"""Build the study's model: a small Llama that has practised ``-``, ``<`` and ``>``, and to refine under a critique.

    python -m recipe.critique_grpo.study.warm_start --out outputs/study/model

Writes the model folder, and ``warm_start.json`` beside it: what was practised, that nothing hard was, how often the
model solves either family, and the probability that it gives the right tokens of a hard solution.
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
from recipe.critique_grpo.study.problems import DIGITS, EASY, HARD, PRACTISED, TEMPLATES, Problem, draw, tokenizer

NOISE = 0.2
"""Share of the digits of practised answers that are random, so that no token's probability is near 0 anywhere."""
STEPS, ROWS, RATE = 500, 96, 2e-3


def practice(rng: random.Random) -> Iterator[list[dict[str, str]]]:
    """Conversations for ever: an answer with noise, and two refinements: by a told answer, and by a verdict alone.

    A told answer is any, so that the model learns to heed it, not to know better.
    """
    while True:
        problem = draw(rng.choice(PRACTISED), rng)
        noisy = tuple(z if rng.random() > NOISE else rng.randrange(10) for z in problem.results)
        yield [said("user", problem.question), said("assistant", problem.solution(noisy))]
        told = tuple(rng.randrange(10) for _ in range(DIGITS))
        words = TEMPLATES["indicative_gt_wrong"].format(ground_truth="".join(map(str, told)))
        yield refinement(problem, told, words, rng)
        words = rng.choice((TEMPLATES["indicative_wrong"], TEMPLATES["retry"]))
        yield refinement(problem, problem.results, words, rng)


def refinement(problem: Problem, results: tuple[int, ...], words: str, rng: random.Random) -> list[dict[str, str]]:
    """A failed answer, a critique, and the answer that is wanted then."""
    wrong = tuple((z + rng.choice((0, 1, 2, 5))) % 10 for z in results)
    return [
        said("user", problem.question),
        said("assistant", problem.solution(wrong)),
        said("user", words),
        said("assistant", problem.solution(results)),
    ]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


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


def encode(words: Any, conversation: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Tokens, and which of them are learned: those of the last turn."""
    before = words.apply_chat_template(conversation[:-1], add_generation_prompt=True, tokenize=False)
    whole = words.apply_chat_template(conversation, tokenize=False)
    given, tokens = words.encode(before, add_special_tokens=False), words.encode(whole, add_special_tokens=False)
    return tokens, [0] * len(given) + [1] * (len(tokens) - len(given))


def train(model: nn.Module, words: Any, seed: int, steps: int) -> list[str]:
    """Supervised practice; returns every question that was practised."""
    source, optimizer = practice(random.Random(seed)), torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)
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


def refined(model: nn.Module, words: Any, problems: list[Problem]) -> float:
    """Share of the problems that are solved in a second attempt, told the answer."""
    first = written(model, words, [[said("user", problem.question)] for problem in problems], False)
    told = TEMPLATES["indicative_gt_wrong"]
    prompts = [
        [
            said("user", problem.question),
            said("assistant", text),
            said("user", told.format(ground_truth=problem.answer)),
        ]
        for problem, text in zip(problems, first, strict=True)
    ]
    second = written(model, words, prompts, False)
    return sum(f"{{{one.answer}}}" in text for one, text in zip(problems, second, strict=True)) / len(problems)


@torch.no_grad()
def written(model: nn.Module, words: Any, prompts: list[list[dict[str, str]]], sample: bool) -> list[str]:
    """What the model answers to prompts of equal length."""
    told = [words.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    given = torch.tensor([words.encode(text, add_special_tokens=False) for text in told])
    settings: dict[str, Any] = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
    attention = torch.ones_like(given)
    output = model.generate(given, attention_mask=attention, max_new_tokens=5 * DIGITS + 2, **settings)  # type: ignore[operator]
    return words.batch_decode(output[:, given.shape[1] :], skip_special_tokens=True)


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


def build(out: Path, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train, measure, prove that nothing hard was practised, write; returns what ``warm_start.json`` holds."""
    words = tokenizer()
    model = build_model(words, seed)
    questions = train(model, words, seed, steps)
    hard_practised = sum(HARD in question for question in questions)
    assert not hard_practised, "the warm start has practised what it must not"
    model.eval()
    with torch.no_grad():  # never seen; without a meaning of its own yet, but one of an operation
        embeddings = model.get_input_embeddings().weight  # type: ignore[operator]
        embeddings[words.convert_tokens_to_ids(HARD)] = embeddings[words.convert_tokens_to_ids(list(PRACTISED))].mean(0)
    rng = random.Random(seed + 1)
    easy, hard = ([draw(operation, rng) for _ in range(256)] for operation in (EASY, HARD))
    chances = right_token_probabilities(model, words, hard[:64])
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "steps": steps,
        "questions practised": len(questions),
        f"questions practised with {HARD}": hard_practised,
        "easy, greedy": solved(model, words, easy),
        "hard, greedy": solved(model, words, hard),
        "easy, pass@64 (64 problems)": solved(model, words, easy[:64], 64),
        "hard, refined under the answer, greedy": refined(model, words, hard),
        "hard, pass@64 (64 problems)": solved(model, words, hard[:64], 64),
        "probability of a right hard digit, quantiles 10%, 50%, 90%": [
            float(chances.quantile(q)) for q in (0.1, 0.5, 0.9)
        ],
    }
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
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.out, arguments.seed, arguments.steps), indent=1))


if __name__ == "__main__":
    main()
