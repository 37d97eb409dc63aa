"""What a job costs: GPU-hours by an arithmetic of tokens, and disk. Nobody has measured these on GPUs."""

from dataclasses import dataclass

PARAMETERS = {
    "qwen2.5_7b": 7.6e9,
    "qwen2.5_math_7b": 7.6e9,
    "qwen3_8b": 8.2e9,
    "llama3.2_3b_instruct": 3.2e9,
}
QUESTIONS, EPOCHS, BATCH, N = 4000, 3, 128, 8  # the training data and scripts/models/launch.sh
TOKENS = 2000  # of a response, on average; prompts are not counted
REFINED = 0.3  # share of the groups that are refined
PROBLEMS = 14_000  # of the paper's benchmarks, most of them in MMLU-Pro
PEAK = 989e12  # FLOP/s of an H100 in bf16
GENERATING, COMPUTING = 0.10, 0.40  # shares of it that are reached
FINETUNED_EPOCHS = 2
GIB = 1024**3
ASSUMPTIONS = (
    f"GPU-hours of an H100: {TOKENS} tokens a response, {QUESTIONS} questions, {EPOCHS} epochs, {N} responses a "
    f"question, {REFINED:.0%} of the groups refined; FLOPs of a token with P parameters are 2P to generate it at "
    f"{GENERATING:.0%} of the peak, 2P for a log-prob and 8P for an update (with recomputation) at {COMPUTING:.0%}. "
    "Prompts, judge and start-up are not counted; a collection that rows share is counted for each of them."
)


@dataclass(frozen=True)
class Cost:
    """Of a job: GPU-hours, and bytes that it leaves on the disk."""

    gpu_hours: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.gpu_hours + other.gpu_hours, self.bytes + other.bytes)


def train(script: str, refines: bool) -> Cost:
    """A training run: every response is generated, has a forward pass, and is trained on; refinements are generated."""
    size, rows = PARAMETERS[script], QUESTIONS * EPOCHS * N
    more = 1 + REFINED * refines
    hours = _hours(2 * size * rows * more * TOKENS, GENERATING) + _hours((2 + 8) * size * rows * TOKENS, COMPUTING)
    return Cost(hours, checkpoint_bytes(script))


def finetune(script: str, collects: bool) -> Cost:
    """A collection with refinements of every question, which others may share, and the fine-tuning on it."""
    size = PARAMETERS[script]
    rows = QUESTIONS * N
    collected = _hours(2 * size * rows * (1 + REFINED) * TOKENS, GENERATING) if collects else 0.0
    learned = (rows / 2 if collects else QUESTIONS) * FINETUNED_EPOCHS
    hours = collected + _hours(8 * size * learned * TOKENS, COMPUTING)
    return Cost(hours, checkpoint_bytes(script) + model_bytes(script))


def evaluate(script: str) -> Cost:
    """One greedy response to every problem."""
    return Cost(_hours(2 * PARAMETERS[script] * PROBLEMS * TOKENS, GENERATING), 0.1 * GIB)


def checkpoint_bytes(script: str) -> float:
    """Weights and Adam's moments in fp32; while one is written the one before is still there."""
    return 12 * PARAMETERS[script]


def model_bytes(script: str) -> float:
    """A model folder in bf16."""
    return 2 * PARAMETERS[script]


def _hours(flops: float, reached: float) -> float:
    return flops / (PEAK * reached) / 3600
