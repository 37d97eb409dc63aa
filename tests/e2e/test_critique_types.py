"""Training with every critique type and objective. Judges on loopback: one that misbehaves, and a real vLLM server."""

from typing import Any

import pytest
from e2e.in_turn import GROUPS, KEY, STEPS, N

pytestmark = pytest.mark.e2e
Dump = list[dict[str, Any]]


def refused_by(stats: dict[str, int]) -> int:
    return sum(stats.get(name, 0) for name in ("429", "500", "drop", "hang", "half"))


def critiques(groups: Dump) -> Dump:
    return [response["critique"] for group in groups for response in group["responses"]]


def refinements(groups: Dump) -> Dump:
    return [one["refinement"] for group in groups for one in group["responses"] if one["refinement"]]


TRAINED = [
    "peers",
    "group",
    "feedback",
    "indicative",
    "retry",
    "inverted",
    "random",
    "self",
    "faulty",
    "rewarding",
    "stronger",
    "cot",
]


@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_through(runs: dict[str, Any], name: str) -> None:
    run, k = runs[name], 2 if name == "indicative" else 1
    assert run["error"] is None
    assert len(run["steps"]) == STEPS
    assert len(run["groups"]) == STEPS * GROUPS
    for group in run["groups"]:
        outcomes = [response["outcome"] for response in group["responses"]]
        assert len(outcomes) == N and outcomes.count("selected") == (k if group["triggered"] else 0)
        assert (None not in outcomes) == group["triggered"]
    assert all(0 < step["critique_grpo/refined_fraction"] <= k / N for step in run["steps"])
    assert all(step["critique_grpo/timing_s/idle"] <= step["critique_grpo/timing_s/rollout"] for step in run["steps"])


def test_same_seed_same_groups(runs: dict[str, Any]) -> None:
    first, second = runs["first"]["groups"], runs["second"]["groups"]
    assert first == second == runs["last"]["groups"], "also after all other runs of the same start"
    assert len({response["text"] for group in first for response in group["responses"]}) > GROUPS * STEPS


def test_what_critics_without_a_judge_say(runs: dict[str, Any]) -> None:
    def said(name: str) -> set[str]:
        return {critique["text"] for critique in critiques(runs[name]["groups"])}

    assert said("indicative") == {"Your answer is wrong."}
    assert said("inverted") == {"Your answer is correct."}
    assert said("random") == {"Your answer is wrong.", "Your answer is correct."}
    assert said("retry") == {""}


def texts(group: dict[str, Any], right: bool) -> set[str]:
    return {response["text"] for response in group["responses"] if (response["score"] >= 1) == right}


def test_peers_and_some_failed_in_the_dump(runs: dict[str, Any]) -> None:
    mixed = 0
    for group in runs["peers"]["groups"]:
        right, wrong = texts(group, True), texts(group, False)
        failed = sum(response["score"] < 1 for response in group["responses"])
        assert group["triggered"] == (failed > 1) and "trigger some_failed" in group["reason"]
        for response in group["responses"] if group["triggered"] else ():
            assert (response["outcome"] == "already correct") == (response["score"] >= 1)
            if response["score"] < 1:
                said = response["critique"]["text"]
                mixed += bool(right)
                assert said.startswith("Your answer is wrong.")
                assert any(f"is correct:\n\n{text}" in said for text in right) == bool(right)
                others = wrong - {response["text"]}
                assert any(said.endswith(f"its mistake:\n\n{text}") for text in others) == bool(others)
    assert mixed > 0, "no group had right and wrong responses"
    assert all(0 < step["critique_grpo/trigger_rate"] <= 1 for step in runs["peers"]["steps"])


def test_group_critiques_in_the_dump(runs: dict[str, Any]) -> None:
    refined = [group for group in runs["group"]["groups"] if group["triggered"]]
    assert 0 < len(refined) < GROUPS * STEPS
    for group in refined:
        for response in group["responses"]:
            others = texts(group, False) - {response["text"]}
            assert all(text in response["critique"]["text"] for text in others)
            assert response["critique"]["text"].count("Attempt ") == len(others)


def test_feedback_in_the_dump_is_what_the_reward_function_says(runs: dict[str, Any]) -> None:
    for group in runs["feedback"]["groups"]:
        for response in group["responses"]:
            expected = f"Expected {group['ground_truth']}, got {len(response['text'])} characters."
            assert response["critique"]["text"] == expected and response["critique"]["valid"]


def test_a_judge_that_misbehaves_costs_no_request_and_is_counted(runs: dict[str, Any]) -> None:
    found = critiques(runs["faulty"]["groups"])
    assert len(found) == STEPS * GROUPS * N
    stats = runs["faulty requests"]["behaviours"]
    # Of 24 that would like to be sent; the server may notice late that nobody waits for one that hangs.
    assert 1 < runs["faulty requests"]["peak"] <= 6 + stats["hang"]
    usable = [critique for critique in found if critique["valid"]]
    assert usable and len(usable) < len(found)
    # Every usable critique came from one "incorrect"; what the server refused was sent again.
    assert len(usable) == stats["incorrect"]
    assert 0 < sum(critique["resent"] for critique in found) <= refused_by(stats)
    asked = sum(1 + critique["retries"] for critique in found)
    assert runs["faulty requests"]["requests"] - refused_by(stats) == pytest.approx(asked, abs=stats["garbage"])
    steps = runs["faulty"]["steps"]
    assert sum(step["critique_grpo/critique_retries"] for step in steps) == sum(one["retries"] for one in found)
    assert sum(step["critique_grpo/critic_errors"] for step in steps) == sum(one["error"] for one in found)


def test_the_run_stops_when_too_many_critiques_are_fallbacks(runs: dict[str, Any]) -> None:
    assert "failure_budget is 0.2" in runs["closed"]["error"]
    assert len(runs["closed"]["steps"]) < STEPS


def test_the_verdict_is_the_reward_when_the_critic_decides(runs: dict[str, Any]) -> None:
    groups = runs["rewarding"]["groups"]
    rows = [row for group in groups for row in [*group["responses"], *refinements([group])]]
    assert {row["score"] for row in rows} == {0.0, 1.0}
    assert all(row["score"] == float(row["critique"]["verdict"]) for row in rows)
    assert any(step["actor/grad_norm"] > 0 for step in runs["rewarding"]["steps"])


def test_another_models_text_enters_as_token_ids_and_is_marked(runs: dict[str, Any]) -> None:
    groups = runs["stronger"]["groups"]
    assert {refinement["text"] for refinement in refinements(groups)} == {"It is \\boxed{6}."}
    assert {refinement["generator"] for refinement in refinements(groups)} == {"endpoint"}
    failed = sum(step["critique_grpo/generator_errors"] for step in runs["stronger"]["steps"])
    assert 0 < failed <= runs["stronger requests"]["behaviours"]["401"]  # those on their way may have been aborted
    # 6 is the answer to some of the questions. There, the refinements that are slower than the first are aborted.
    right = [group for group in groups if any(refinement["score"] for refinement in refinements([group]))]
    assert right and all(group["ground_truth"] == "6" for group in right)
    assert sum(step["critique_grpo/refinements_aborted"] for step in runs["stronger"]["steps"]) > 0


def test_self_critiques_come_from_the_policy(runs: dict[str, Any]) -> None:
    found = critiques(runs["self"]["groups"])
    assert all(critique["tokens"] > 0 for critique in found)
    usable = [critique for critique in found if critique["valid"]]
    assert len({critique["text"] for critique in usable}) > len(usable) / 2 > 0
    assert all(critique["text"].endswith("Verdict: incorrect") and not critique["verdict"] for critique in usable)
    # The others called a wrong response right, as often as they were asked: a fallback stands in.
    assert all(critique["retries"] == 2 for critique in found if not critique["valid"])
    tokens = sum(step["critique_grpo/tokens/critique"] for step in runs["self"]["steps"])
    assert tokens == sum(critique["tokens"] for critique in found)


def test_a_real_judge_answers_every_request_once(runs: dict[str, Any]) -> None:
    found = critiques(runs["cot"]["groups"])
    assert not any(critique["error"] for critique in found)
    assert runs["real requests"] == sum(1 + critique["retries"] for critique in found)
    usable = [critique for critique in found if critique["valid"]]
    # Each in words of its own. The rule has called every one of these responses wrong, so nothing else is usable.
    assert len({critique["text"] for critique in usable}) > len(usable) / 2 > 0
    assert all(critique["text"].endswith("Verdict: incorrect") and not critique["verdict"] for critique in usable)


def test_the_key_is_written_nowhere(runs: dict[str, Any]) -> None:
    """Neither into logs, metrics, dumps, caches and checkpoints nor into the logs of Ray's workers."""
    files = [path for folder in runs["folders"] for path in folder.rglob("*") if path.is_file()]
    assert {"train.log", "metrics.jsonl", "1.jsonl", "error.txt"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_demonstrations_are_rows_of_their_groups(runs: dict[str, Any]) -> None:
    """A random model gets no sum right, so the demonstration alone is rewarded."""
    run = runs["demonstrated"]
    assert run["error"] is None and len(run["groups"]) == STEPS * GROUPS
    for group in run["groups"]:
        assert [row["origin"] for row in group["rows"]] == ["initial"] * (N - 1) + ["expert"]
        assert [row["advantage"] for row in group["rows"]] == [-1 / N] * (N - 1) + [1 - 1 / N]
        assert len(group["responses"]) == N - 1
    for step in run["steps"]:
        assert step["critique_grpo/expert_fraction"] == 1 / N and step["critique_grpo/expert_reward"] == 1.0
        assert step["actor/grad_norm"] > 0 and 0 < step["critique_grpo/expert_pull_share"] < 1


def test_what_is_rewarded_is_imitated_and_nothing_else(runs: dict[str, Any]) -> None:
    run = runs["imitating"]
    assert run["error"] is None and len(run["groups"]) == STEPS * GROUPS
    imitated = 0.0
    for group in run["groups"]:
        scores = [response["score"] for response in group["responses"]]
        if group["triggered"]:  # the refinement has the first slot
            (selected,) = [one["refinement"] for one in group["responses"] if one["outcome"] == "selected"]
            scores = [selected["score"], *scores[1:]]
        assert [row["advantage"] for row in group["rows"]] == scores
        imitated += sum(scores)
    assert imitated > 0 and any(step["actor/grad_norm"] > 0 for step in run["steps"])
    assert all(step["actor/pg_loss"] >= 0 for step in run["steps"]), "-log p of what is imitated"
