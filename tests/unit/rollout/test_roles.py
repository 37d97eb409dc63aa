"""Rows that train the policy as critic or refiner: what they are worth, which there are, and whose place they take."""

import random
from dataclasses import replace
from typing import Any

import pytest
from group_fakes import World, options, outcomes, rows, run

from recipe.critique_grpo.critics import Critique, OwnWords, Subject
from recipe.critique_grpo.options import CriticRoleConfig, RefinerRoleConfig, RolesConfig, TransitionConfig
from recipe.critique_grpo.rollout.records import role_metrics
from recipe.critique_grpo.rollout.roles import Longest, RoleText, chosen_texts, critic_texts, refiner_texts, utility
from recipe.critique_grpo.rollout.rows import REFINEMENT
from recipe.critique_grpo.rollout.sample import Sample

pytestmark = pytest.mark.unit


def refined(
    score: float, to: float | None, critique: Critique | None = None, own: OwnWords | None = None
) -> Sample[str]:
    """A response, its critique and what came of it."""
    response = Sample("row", "text", score, 5, critique=critique)
    if to is not None:
        response.refinement = Sample("row", "better", to, 5, origin=REFINEMENT, own=own)
    return response


def words(number: int, verdict: bool | None = None) -> OwnWords:
    return OwnWords((number,), (number,), verdict)


def text(reward: float, prompt: int = 1, response: int = 1) -> RoleText:
    return RoleText("critic", OwnWords((7,) * prompt, (7,) * response), reward)


def roles(critic: int = 0, refiner: int = 0, **rewards: str) -> RolesConfig:
    return RolesConfig(
        CriticRoleConfig(critic, rewards.get("critic_reward", "utility")),
        RefinerRoleConfig(refiner, rewards.get("refiner_reward", "outcome")),
    )


def critic(subject: Subject) -> Critique:
    """A critique that names its slot by its tokens; that of slot 3 could not be used."""
    slot = int(subject.response.rsplit(" ")[-1])
    return Critique("no", valid=slot != 3, own=words(slot, verdict=slot == 1))


@pytest.mark.parametrize(
    ("first", "second", "worth"), [(0, 1, 1.0), (0, 0, 0.0), (0.2, 0.5, 0.3), (1, 1, 1.0), (1, 0, -1.0)]
)
def test_a_critique_is_worth_what_comes_of_it(first: float, second: float, worth: float) -> None:
    response = refined(first, second)
    assert response.refinement is not None
    assert utility(response, response.refinement) == pytest.approx(worth)


def test_utility_is_that_of_critiques_that_were_used_and_nothing_of_those_that_could_not_be() -> None:
    found = [
        refined(0, 1, Critique("no", own=words(1))),
        refined(0, 1, Critique("a fallback", valid=False, own=words(2))),
        refined(0, None, Critique("no", own=words(3))),
        refined(0, 1, Critique("of a judge")),
        refined(0, 0, Critique("no", own=words(5))),
        refined(0, 1),
    ]
    worth = [(one.own.token_ids, one.reward) for one in critic_texts(found, "utility")]
    assert worth == [((1,), 1.0), ((2,), 0.0), ((5,), 0.0)]


def test_a_verdict_is_worth_its_agreement_with_the_rule() -> None:
    found = [
        refined(0, 1, Critique("no", own=words(1, verdict=False))),
        refined(0, 1, Critique("a fallback", valid=False, own=words(2, verdict=True))),
        refined(1, None, Critique("no", own=words(3, verdict=True))),
        refined(0, 1, Critique("a fallback", valid=False, own=words(4, verdict=None))),
    ]
    texts = list(critic_texts(found, "verdict"))
    assert [one.reward for one in texts] == [1.0, 0.0, 1.0, 0.0]
    assert [one.critiqued for one in texts] == ["wrong", "wrong", "right", "wrong"]


def test_a_refiner_is_rewarded_for_the_outcome_or_for_the_transition() -> None:
    found = [refined(*pair, None, words(number)) for number, pair in enumerate([(0, 1), (1, 1), (1, 0), (0, 0)])]
    assert [one.reward for one in refiner_texts(found, None)] == [1, 1, 0, 0]
    assert [one.reward for one in refiner_texts(found, TransitionConfig())] == [1.0, 0.6, -1.0, -0.1]
    other = TransitionConfig(correction=2.0, boundary=0.5)
    assert [one.reward for one in refiner_texts(found, other)] == [2.0, 0.6, -1.0, 0.5]
    assert not list(refiner_texts([refined(0, None), refined(0, 1)], None)), "written by another model"


@pytest.mark.parametrize("wanted", [2, 3, 5, 9])
def test_chosen_rows_have_something_to_be_compared_with(wanted: int) -> None:
    found = [text(reward) for reward in (0, 0, 0, 0, 0.5, 1)]
    for seed in range(20):
        chosen = chosen_texts(found, wanted, random.Random(seed))
        assert len(chosen) == min(wanted, len(found)) == len({id(one) for one in chosen})
        assert {0, 1} <= {one.reward for one in chosen}
    assert chosen_texts(found, wanted, random.Random(3)) == chosen_texts(found, wanted, random.Random(3))


@pytest.mark.parametrize(("rewards", "wanted"), [((1, 1, 1), 2), ((), 2), ((0, 1), 1), ((0, 1), 0)])
def test_none_are_chosen_whose_advantages_would_be_0(rewards: tuple[int, ...], wanted: int) -> None:
    assert chosen_texts([text(reward) for reward in rewards], wanted, random.Random(0)) == []


@pytest.mark.parametrize(("prompt", "response", "fits"), [(9, 3, True), (10, 3, False), (9, 4, False), (9, 0, False)])
def test_a_row_has_no_more_tokens_than_verl_pads_to(prompt: int, response: int, fits: bool) -> None:
    assert Longest(9, 3).fits(text(1, prompt, response)) == fits
    assert Longest().fits(text(1, 1000, 1000))


@pytest.mark.asyncio
async def test_roles_take_the_last_slots_and_refinements_the_first() -> None:
    world = World(options(roles=roles(critic=2)), (0,) * 6, (0, 1, 0, 1, 0, 0), says=critic, tokens=(1,) * 6)
    mixed = await run(world)
    assert rows(mixed)[1:4] == ["row 1", "row 2", "row 3"] and rows(mixed)[0] in ("refined row 1", "refined row 3")
    # That of slot 1 alone was good for something: slot 3 was refined under a fallback.
    assert "critic 1: 1" in rows(mixed)[4:] and any(row.endswith(": 0") for row in rows(mixed)[4:])
    assert [sample.origin for sample in mixed.samples] == ["refinement"] + ["initial"] * 3 + ["critic"] * 2
    (record,) = mixed.record.roles
    assert (record.role, record.rewards, record.rows, record.too_long) == ("critic", [0, 1, 0, 0, 0, 0], 2, 0)
    assert all(response.critique and response.critique.own is None for response in mixed.record.responses)
    assert role_metrics([mixed.record]) == {
        "critic_reward": pytest.approx(1 / 6),
        "critic_rows": 2,
        "critic_too_long": 0,
    }


@pytest.mark.asyncio
async def test_both_roles_without_a_refinement_in_the_group() -> None:
    both = roles(critic=2, refiner=2, critic_reward="verdict", refiner_reward="transition")
    world = World(options(roles=both, trigger="always", num=0), (0, 1, 0, 1, 0), (1, 0, 0, 1, 0), says=critic)
    mixed = await run(world)
    assert [sample.origin for sample in mixed.samples] == ["initial"] + ["refiner"] * 2 + ["critic"] * 2
    assert [record.rewards for record in mixed.record.roles] == [[1, 1, 1, 0, 1], [1, -1, -0.1, 0.6, -0.1]]
    assert outcomes(mixed) == ["not selected"] * 5
    assert {row.split(":")[-1] for row in rows(mixed)[1:3]} == {" 1", " -1"}


@pytest.mark.asyncio
async def test_right_responses_keep_their_place_and_a_wrong_one_stays_to_compare_with() -> None:
    world = World(
        options(roles=roles(refiner=2), trigger="some_failed"), (1, 0, 0, 0, 0, 1), (0, 1, 0, 1, 0, 0), says=critic
    )
    mixed = await run(world)
    assert [sample.origin for sample in mixed.samples] == [
        "initial",
        "refinement",
        "initial",
        "refiner",
        "refiner",
        "initial",
    ]
    assert rows(mixed)[0] == "row 0" and rows(mixed)[2] == "row 2" and rows(mixed)[5] == "row 5"


@pytest.mark.parametrize(
    ("initial", "again"),
    [((1, 1, 0, 0, 1, 1), (0, 0, 1, 0, 0, 0)), ((0,) * 6, (1,) * 6), ((0,) * 6, (0,) * 6), ((0,) * 6, (None,) * 6)],
)
@pytest.mark.asyncio
async def test_no_rows_where_there_is_no_place_or_no_difference(initial: Any, again: Any) -> None:
    def usable(subject: Subject) -> Critique:
        return replace(critic(subject), valid=True)

    mixed = await run(
        World(options(roles=roles(critic=2, refiner=2), trigger="some_failed"), initial, again, says=usable)
    )
    assert {sample.origin for sample in mixed.samples} <= {"initial", "refinement"}
    assert [record.rows for record in mixed.record.roles] == [0, 0]


@pytest.mark.asyncio
async def test_what_is_too_long_is_left_out_and_counted() -> None:
    def wordy(subject: Subject) -> Critique:
        slot = int(subject.response.rsplit(" ")[-1])
        return Critique("no", own=OwnWords((slot,) * (91 if slot == 1 else 90), (slot,) * (10 if slot == 4 else 9)))

    mixed = await run(World(options(roles=roles(critic=2)), (0,) * 6, (0, 1, 0, 1, 1, 0), says=wordy))
    (record,) = mixed.record.roles
    assert record.too_long == 2 and record.rows == 2 and len(record.rewards) == 6
    assert "critic 3: 1" in rows(mixed), "those of slots 1 and 4 are the others that were good for something"


@pytest.mark.asyncio
async def test_a_group_that_is_not_refined_has_no_roles() -> None:
    mixed = await run(World(options(roles=roles(critic=2)), (0, 0, 0, 1), says=critic))
    assert mixed.record.roles == [] and rows(mixed) == [f"row {slot}" for slot in range(4)]
    assert role_metrics([mixed.record]) == {}
