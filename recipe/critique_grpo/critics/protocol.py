"""What a critic is asked, what it answers, and what a critique type declares about itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Template, Templates
from verl_ext.chat_client import Chat, Reply


@dataclass(frozen=True)
class Sibling:
    """Another response of the same group, scored."""

    text: str
    score: float  # correct from 1 on


@dataclass(frozen=True)
class Subject:
    """One response that is to be critiqued."""

    question: str
    response: str
    ground_truth: str  # of several answers that are right, the first
    correct: bool | None  # the rule's verdict; None when the critic decides (reward.source=critique)
    seed: int  # of everything random about this critique
    siblings: tuple[Sibling, ...] = ()  # in the order of their slots; () while the group is not complete
    feedback: str = ""  # what the reward function itself says of the response, under the key "feedback"
    others: tuple[str, ...] = ()  # further answers that are right

    @property
    def true_answers(self) -> str:
        """All of them, as a judge is told."""
        return " or ".join([self.ground_truth, *self.others])


@dataclass(frozen=True)
class PolicyReply(Reply):
    """A reply of the policy that is being trained, with the token ids of the prompt and of the reply as sampled."""

    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class OwnWords:
    """What the policy itself has said in a role: token ids of the prompt, and of the text as it was sampled."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    verdict: bool | None = None  # of a critique, if it ends in one


@dataclass(frozen=True)
class Critique:
    """What is said of one response."""

    text: str | None  # None: this response is not refined; "": it is refined without any critique
    verdict: bool | None = None  # the critic's own; only critics that judge have one
    valid: bool = True  # False: a fallback stands in for the configured critique
    retries: int = 0  # how often the critic was asked again for its verdict
    resent: int = 0  # times a request was sent again (429, 5xx, time-out), answered in the end or not
    tokens: int = 0  # completion tokens of the judge, all attempts; a reply from the cache counts as when it was new
    error: bool = False  # the judge could not be asked (as opposed to: gave no usable verdict)
    reason: str = ""  # of a fallback: why the judge's last answer could not be used, with the end of it where it helps
    steps: tuple[bool, ...] = ()  # of a critic that judges them: which steps of the response are correct
    own: OwnWords | None = None  # the policy's last attempt, whether it could be used or not; None of other critics


class Critic(ABC):
    """Writes the critique of one response (paper, section 3: indicative, indicative with ground truth, CoT).

    A critique type is a subclass. What it needs it declares here, in its own file:
    """

    #: Whom it asks: the endpoint ``critique_grpo.judge``, the policy on its own rollout servers, or nobody.
    asks: ClassVar[Literal["judge", "policy"] | None] = None
    #: Whether its critiques carry a verdict, so that it can decide the reward (reward.source=critique).
    has_verdict: ClassVar[bool] = False
    #: Whether it judges every step (``Critique.steps``), so that a response can be shown up to its first wrong one.
    judges_steps: ClassVar[bool] = False
    #: Whether it has to see all responses of the group (``Subject.siblings``); then no critique begins before the last
    #: response is scored.
    needs_group: ClassVar[bool] = False
    #: Its templates, by names of its own or shared with other types.
    wording: ClassVar[Mapping[str, Template]] = {}

    def __init__(self, options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None = None) -> None:
        """``templates``: the texts of ``wording``, the user's own in their place. ``chat``: whom it ``asks``.

        Raises:
            ValueError: it asks somebody and there is no chat.
        """
        if self.asks and chat is None:
            raise ValueError(f"critique type {options.critique.type} needs a chat to ask")
        self.options = options
        self.templates = templates
        self.chat = chat

    @abstractmethod
    async def critique(self, subject: Subject) -> Critique:
        """The critique of one response.

        Raises:
            FailureBudgetExceeded: too many of the last critiques were fallbacks; the run has to stop.
        """


def ruled(subject: Subject) -> bool:
    """The rule's verdict, for critics that have none of their own."""
    if subject.correct is None:
        raise ValueError("this critique type cannot judge: critique_grpo.reward.source=critique needs one that can.")
    return subject.correct
