r"""Prompt templates of the builders. All of them ask for the final answer in \boxed{}."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from data_preprocess.common.sources import DataError

BOX = r"\boxed{}"
FIELD = "{question}"
Message = dict[str, str]

_SHOTS = (
    (
        "A shop sells pens in boxes of 12. How many pens are in 7 boxes when 5 pens have been taken out?",
        r"Seven boxes hold 7 * 12 = 84 pens. With 5 taken out, 84 - 5 = 79 remain. The final answer is \boxed{79}.",
    ),
    (
        r"Solve $3x + 4 = 5x - 7$ for $x$.",
        r"Bring $x$ to one side: $4 + 7 = 5x - 3x$, so $11 = 2x$ and $x = \frac{11}{2}$. "
        r"The final answer is \boxed{\frac{11}{2}}.",
    ),
    (
        "Two fair dice are rolled. What is the probability that the sum is 10 or more?",
        r"There are 36 outcomes. Three give 10, two give 11 and one gives 12, so 6 are favourable and the probability "
        r"is $\frac{6}{36} = \frac{1}{6}$. The final answer is \boxed{\frac{1}{6}}.",
    ),
    (
        "Which of these gases makes up most of the air?\n\nA. oxygen\nB. argon\nC. nitrogen\nD. carbon dioxide",
        r"Dry air is about 78% nitrogen, 21% oxygen and 1% argon, so the gas is nitrogen. "
        r"The final answer is \boxed{C}.",
    ),
)


@dataclass(frozen=True)
class PromptTemplate:
    """`user` contains {question} once; every other brace stands for itself."""

    name: str
    user: str
    system: str | None = None

    def messages(self, question: str) -> list[Message]:
        """The chat that asks `question`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user.replace(FIELD, question)}]


BUILT_IN = {
    template.name: template
    for template in (
        PromptTemplate("qwen-boxed", FIELD, f"Please reason step by step, and put your final answer within {BOX}."),
        PromptTemplate("llama", f"{FIELD}\n\nThink step by step. State the final answer at the end inside {BOX}."),
        PromptTemplate(
            "base",
            f"Each solution below ends with its final answer in {BOX}.\n\n"
            + "".join(f"Problem: {problem}\nSolution: {solution}\n\n" for problem, solution in _SHOTS)
            + f"Problem: {FIELD}\nSolution:",
        ),
    )
}


def load_template(name: str) -> PromptTemplate:
    """A built-in template, or one from a YAML file with the texts `user` and, optionally, `system`.

    Raises:
        DataError: there is no such template or file, or the file is not like that.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"--template: {name} is neither a file nor one of {', '.join(BUILT_IN)}")
    try:
        texts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"--template: {path} is no YAML file ({str(error).splitlines()[0]})") from error
    if not isinstance(texts, dict) or not set(texts) <= {"user", "system"} or "user" not in texts:
        raise DataError(f"--template: {path} must hold `user` and may hold `system`, and nothing else")
    if not all(isinstance(text, str) for text in texts.values()) or texts["user"].count(FIELD) != 1:
        raise DataError(f"--template: in {path} both must be texts, and `user` must contain {FIELD} once")
    return PromptTemplate(str(path), texts["user"], texts.get("system"))
