"""Critiques that a model writes step by step and ends in a verdict: ``cot`` (another model), ``self`` (the policy).

Who is asked is the only difference, so one class serves both. A verdict is usable if it is there (``verdict.py``) and
does not contradict the rule-based score. A judge that calls a response right which the rule scored wrong has missed the
error, or the rule has missed a right answer; either way its critique says "keep this" of a response whose reward is 0,
and the reward comes from the rule. So the rule stands and the judge is asked again, and the same the other way round.
"""

from recipe.critique_grpo.config import CritiqueGRPOConfig
from recipe.critique_grpo.critics.indicative import indicative_gt_text, indicative_text
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject
from recipe.critique_grpo.critics.verdict import final_text, parse_verdict
from recipe.critique_grpo.failure_budget import FailureBudget
from recipe.critique_grpo.prompts import Templates
from verl_ext.chat_client import Chat, ChatError, Reply

CHARACTERS_PER_TOKEN = 16
"""An answer longer than this for every token it may have is not from a sound server, and enters no prompt."""

_ADVICE = (
    "Earlier reasons stand in the workers' log and, for the steps before this one, in critique_grpo.dump_dir. Mend the "
    "endpoint (critique_grpo.judge), choose another judge or template, allow more critique.attempts or "
    "critique.max_tokens"
)


class JudgedCritic:
    """Asks a judge, up to ``critique.attempts`` times, for a critique with a usable verdict; else falls back."""

    def __init__(self, options: CritiqueGRPOConfig, templates: Templates, chat: Chat) -> None:
        self.options = options.critique
        self.templates = templates
        self.chat = chat
        self.budget = FailureBudget(options.critique.failure_budget, "critiques were fallbacks", _ADVICE)

    async def critique(self, subject: Subject) -> Critique:
        messages = [{"role": "user", "content": self._request(subject)}]
        tokens, resent, reason = 0, 0, ""
        for attempt in range(self.options.attempts):
            try:
                reply = await self.chat(
                    messages, seed=attempt_seed(subject.seed, attempt), max_tokens=self.options.max_tokens
                )
            except ChatError as error:  # the chat has tried again as often as makes sense
                resent += error.retries
                return self._fallback(subject, str(error), error=True, retries=attempt, resent=resent, tokens=tokens)
            tokens += reply.tokens
            resent += reply.retries
            text, verdict, reason = self._judgement(reply, subject.correct)
            if not reason:
                self.budget.passed()
                return Critique(text, verdict, retries=attempt, resent=resent, tokens=tokens)
        last = self.options.attempts - 1
        return self._fallback(subject, reason, error=False, retries=last, resent=resent, tokens=tokens)

    def _request(self, subject: Subject) -> str:
        if self.options.reference:
            return self.templates.cot_reference.format(
                question=subject.question, response=subject.response, ground_truth=subject.ground_truth
            )
        return self.templates.cot.format(question=subject.question, response=subject.response)

    def _judgement(self, reply: Reply, correct: bool | None) -> tuple[str, bool | None, str]:
        """The critique, its verdict, and why it cannot be used: nothing if it can."""
        limit = self.options.max_tokens
        if not reply.finished:
            return "", None, f"an answer was cut off at critique.max_tokens ({limit})."
        if len(reply.text) > limit * CHARACTERS_PER_TOKEN:
            return "", None, f"an answer has {len(reply.text)} characters where {limit} tokens were asked for."
        text = final_text(reply.text)
        verdict = None if text is None else parse_verdict(text)
        if text is None or verdict is None:
            return "", None, f"an answer does not end in a verdict; its end is {reply.text[-80:]!r}."
        if correct is not None and verdict != correct:
            return "", None, f"the verdict was {_name(verdict)}, the rule-based score says {_name(correct)}."
        return text, verdict, ""

    def _fallback(self, subject: Subject, reason: str, *, error: bool, **counts: int) -> Critique:
        self.budget.failed("the judge could not be asked" if error else "it gave no usable verdict", reason)
        # Where the critic decides about the reward and could not, nothing is rewarded.
        correct = bool(subject.correct)
        text = {
            "indicative": lambda: indicative_text(self.templates, subject, correct),
            "indicative_gt": lambda: indicative_gt_text(self.templates, subject, correct),
            "skip": lambda: None,
        }[self.options.fallback]()
        verdict = False if subject.correct is None else None
        return Critique(text, verdict, valid=False, error=error, reason=reason, **counts)


def attempt_seed(seed: int, attempt: int) -> int:
    """A seed for each attempt, in the range that every server takes; neighbours of ``seed`` do not share them."""
    return (seed + attempt * 0x9E3779B1) % 2**31


def _name(verdict: bool) -> str:
    return "correct" if verdict else "incorrect"


def judged(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of types ``cot`` and ``self``."""
    if chat is None:
        raise ValueError(f"critique type {options.critique.type} needs a chat to ask")
    return JudgedCritic(options, templates, chat)


TYPES = {"cot": judged, "self": judged}
