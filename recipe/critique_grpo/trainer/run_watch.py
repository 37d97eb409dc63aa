"""Says in one line when a run goes wrong, and what to do about it; it changes nothing."""

from collections import deque
from collections.abc import Iterator, Mapping
from statistics import mean

OWN = "critique_grpo/"
WINDOW = 20
"""Training steps that something has to last."""
START = 5
"""Training steps whose mean is what entropy and length are compared with."""
RUNAWAY = 3.0
"""Entropy and length have run away at so many times their start ..."""
FALLEN = 0.05
"""... and validation has fallen at so much below its best, twice in a row."""
SEE = "Look at its groups: python -m recipe.critique_grpo.report."


class RunWatch:
    """What a run's metrics warn of. A warning is said once, and again when it has been over.

    Args:
        refines: whether groups are to be refined at all.
    """

    def __init__(self, refines: bool = True) -> None:
        self._refines = refines
        self._recent: deque[Mapping[str, float]] = deque(maxlen=WINDOW)
        self._start: dict[str, list[float]] = {}
        self._said: set[str] = set()
        self._accuracy: list[float] = []  # in training, of every step
        self._best, self._best_at, self._below = -1.0, 0, 0

    def training(self, metrics: Mapping[str, float]) -> list[str]:
        """Take the metrics of a training step; returns what is to be said now."""
        self._recent.append(dict(metrics))
        if OWN + "initial_accuracy" in metrics:
            self._accuracy.append(metrics[OWN + "initial_accuracy"])
        for name in (OWN + "entropy_initial", "response_length/mean"):
            if name in metrics and len(self._start.setdefault(name, [])) < START:
                self._start[name].append(metrics[name])
        return self._new(dict(self._wrong()), {"refinements", "trigger", "entropy", "length"})

    def validation(self, accuracy: float) -> list[str]:
        """Take a validation accuracy, the mean over data sources."""
        if accuracy >= self._best:
            self._best, self._best_at, self._below = accuracy, len(self._accuracy), 0
        elif accuracy < self._best - FALLEN:
            self._below += 1
        else:
            self._below = 0
        before, since = self._accuracy[: self._best_at][-WINDOW:], self._accuracy[self._best_at :]
        found = {}
        if self._below >= 2 and before and since and mean(since) > mean(before):
            found["validation"] = (
                f"validation has fallen from {self._best:.1%} to {accuracy:.1%} while training accuracy has risen: the "
                "policy learns the training set, or the reward's weaknesses. Stop at the best checkpoint, lower the "
                f"learning rate, or add problems. {SEE}"
            )
        return self._new(found, {"validation"})

    def _new(self, found: Mapping[str, str], kinds: set[str]) -> list[str]:
        new = [text for kind, text in found.items() if kind not in self._said]
        self._said = self._said - kinds | found.keys()
        return new

    def _wrong(self) -> Iterator[tuple[str, str]]:
        if len(self._recent) == WINDOW:
            made = [step.get(OWN + "refinements", 0.0) for step in self._recent]
            right = [step.get(OWN + "refinement_success", 0.0) for step in self._recent]
            rates = [step.get(OWN + "trigger_rate") for step in self._recent]
            if any(made) and not any(right):
                yield (
                    "refinements",
                    f"none of {sum(made):.0f} refinements in {WINDOW} steps was correct: they cost their sampling and "
                    "teach nothing. Try another critique.type or templates (indicative_gt tells the answer), and see "
                    f"whether critique_grpo/prompt_truncated is high. {SEE}",
                )
            if self._refines and all(rate == 0 for rate in rates):
                yield (
                    "trigger",
                    f"no group was refined in {WINDOW} steps, so this is GRPO: take harder problems, or "
                    "critique_grpo.refinement.trigger=some_failed or always.",
                )
            if all(rate == 1 for rate in rates) and not any(
                step.get(OWN + "initial_accuracy") for step in self._recent
            ):
                yield (
                    "trigger",
                    f"no initial response was correct in {WINDOW} steps: the problems are too hard, or their answers "
                    f"are not found (critique_grpo/unboxed). {SEE}",
                )
        yield from self._runaway(
            "entropy", OWN + "entropy_initial", "lower the learning rate, or clip (clip_ratio_high)"
        )
        yield from self._runaway(
            "length", "response_length/mean", "see whether they repeat themselves, and are cut off"
        )

    def _runaway(self, kind: str, name: str, advice: str) -> Iterator[tuple[str, str]]:
        start, recent = self._start.get(name, []), [step[name] for step in list(self._recent)[-START:] if name in step]
        if len(start) == len(recent) == START and mean(recent) > RUNAWAY * mean(start) > 0:
            unit = "nats a token" if kind == "entropy" else "tokens"
            yield (
                kind,
                f"{kind} of responses has gone from {mean(start):.3g} to {mean(recent):.3g} {unit}: {advice}. {SEE}",
            )
