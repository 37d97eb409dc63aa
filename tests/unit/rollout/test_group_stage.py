import random
from dataclasses import replace
from typing import Any

import pytest
from group_fakes import (
    FOREVER,
    QUESTION,
    UNWRITTEN,
    World,
    options,
    outcomes,
    refined,
    refined_slots,
    rows,
    run,
)

from recipe.critique_grpo.critics import Critique, Sibling, Subject

pytestmark = pytest.mark.unit


# --- which groups are refined, and what a mixed group holds ---------------------------------------------------------


@pytest.mark.parametrize("num", [0, 1, 2])
@pytest.mark.parametrize("initial", [(0, 0, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1)], ids=["none right", "one", "all"])
@pytest.mark.parametrize("trigger", ["all_failed", "always", "never"])
@pytest.mark.asyncio
async def test_a_mixed_group(trigger: str, initial: tuple[int, ...], num: int) -> None:
    world = World(options(trigger=trigger, num=num), initial, refined=(0, 1, 0, 1))
    mixed = await run(world)
    triggered = num > 0 and (trigger == "always" or (trigger == "all_failed" and sum(initial) == 0))
    k = num if triggered else 0
    assert refined(mixed) == [True] * k + [False] * (4 - k)
    assert set(rows(mixed)[:k]) <= {"refined row 1", "refined row 3"}  # the correct ones first
    assert len(set(rows(mixed))) == 4 and rows(mixed)[k:] == [f"row {slot}" for slot in range(k, 4)]
    assert mixed.record.triggered == triggered
    assert [response.score for response in mixed.record.responses] == list(initial)
    assert refined_slots(mixed) == ([0, 1, 2, 3] if triggered else [])
    assert bool(world.subjects) == triggered  # what is not refined is not critiqued either


@pytest.mark.parametrize("num", [1, 2, 3, 4])
@pytest.mark.asyncio
async def test_wrong_refinements_fill_up_the_k(num: int) -> None:
    mixed = await run(World(options(trigger="always", num=num), refined=(0, 0, 1, 0)))
    assert rows(mixed)[0] == "refined row 2"
    assert refined(mixed) == [True] * num + [False] * (4 - num)


@pytest.mark.parametrize(
    ("selection", "tokens", "log_probs", "expected"),
    [
        ("best", (9, 9, 9, 9), (None,) * 4, ["refined row 1", "refined row 2"]),
        ("shortest", (1, 9, 5, 2), (None,) * 4, ["refined row 3", "refined row 2"]),
        ("likeliest", (9, 9, 9, 9), (-0.1, -0.9, -0.5, -0.7), ["refined row 2", "refined row 3"]),
        ("likeliest", (9, 9, 9, 9), (-0.1, -0.9, None, -0.7), ["refined row 3", "refined row 1"]),  # None: no tokens
    ],
)
@pytest.mark.asyncio
async def test_selection_gets_lengths_and_log_probs(
    selection: str, tokens: tuple[int, ...], log_probs: tuple[float | None, ...], expected: list[str]
) -> None:
    settings = options(trigger="always", num=2, selection=selection)
    world = World(settings, refined=(0, 1, 1, 1), tokens=tokens, log_probs=log_probs)
    assert rows(await run(world))[:2] == expected


@pytest.mark.asyncio
async def test_the_record_tells_it_all() -> None:
    mixed = await run(World(options(num=1), refined=(0, 1, 0, 0), tokens=(5, 6, 7, 8)))
    record = mixed.record
    assert (record.step, record.index, record.question, record.ground_truth) == (3, "17", "1+1?", "2")
    assert [(item.text, item.tokens) for item in record.responses] == [(f"answer {i}", 10 + i) for i in range(4)]
    assert {item.critique for item in record.responses} == {Critique("no")}
    assert [(item.text, item.score, item.tokens) for item in record.refinements] == [
        ("better 0", 0, 5),
        ("better 1", 1, 6),
        ("better 2", 0, 7),
        ("better 3", 0, 8),
    ]
    assert {item.generator for item in record.refinements} == {"endpoint"}  # as its sample says
    assert outcomes(mixed) == ["not selected", "selected", "not selected", "not selected"]
    assert [item.critique for item in record.refinements] == [None] * 4  # the rule scored them


@pytest.mark.asyncio
async def test_the_critic_is_told_what_it_needs() -> None:
    world = World(options(trigger="always"), initial=(0, 1, 0, 0.5))
    await run(world)
    subjects = sorted(world.subjects, key=lambda subject: subject.response)
    assert [subject.feedback for subject in subjects] == [f"feedback {slot}" for slot in range(4)]
    assert [subject.correct for subject in subjects] == [False, True, False, False]
    assert {(subject.question, subject.ground_truth) for subject in subjects} == {("1+1?", "2")}
    assert len({subject.seed for subject in subjects}) == 4


@pytest.mark.parametrize("trigger", ["all_failed", "some_failed"])
@pytest.mark.asyncio
async def test_a_right_answer_that_was_punished_for_its_length_is_right(trigger: str) -> None:
    """A reward manager may lower the score; what counts as correct is ``acc``, where the reward function returns it."""
    world = World(options(trigger=trigger), initial=(0.6, 0, 0, 0), accs=(1.0, 0.0, 0.0, 0.0))
    mixed = await run(world)
    assert mixed.record.triggered == (trigger == "some_failed")
    assert [response.correct for response in mixed.record.responses] == [True, False, False, False]
    assert mixed.samples[0].score == 0.6  # which is what it is trained on
    if trigger == "some_failed":
        assert world.subjects and all(subject.siblings[0] == Sibling("answer 0", 1.0) for subject in world.subjects)


# --- trigger some_failed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initial", "wrong"), [((1, 0, 1, 0), [1, 3]), ((1, 0, 0, 0), [1, 2, 3]), ((0, 0, 0, 0), [0, 1, 2, 3])]
)
@pytest.mark.asyncio
async def test_some_failed_refines_and_replaces_wrong_responses_only(
    initial: tuple[int, ...], wrong: list[int]
) -> None:
    world = World(options(trigger="some_failed", num=2), initial, refined=(0, 1, 0, 1))
    mixed = await run(world)
    assert mixed.record.triggered and refined_slots(mixed) == wrong
    assert world.asked() == {f"answer {slot}": 1 for slot in wrong}
    assert [slot for slot, outcome in enumerate(outcomes(mixed)) if outcome == "already correct"] == [
        slot for slot in range(4) if slot not in wrong
    ]
    k = min(2, len(wrong) - 1)  # one stays, or nothing would be left to learn from
    assert [slot for slot, is_refinement in enumerate(refined(mixed)) if is_refinement] == wrong[:k]
    assert sum(sample.score for sample in mixed.samples) == sum(initial) + k  # no reward is lost: it can only rise


@pytest.mark.parametrize("initial", [(1, 1, 1, 1), (1, 1, 1, 0)])
@pytest.mark.asyncio
async def test_some_failed_leaves_a_group_alone_that_has_no_failure_to_spare(initial: tuple[int, ...]) -> None:
    mixed = await run(World(options(trigger="some_failed"), initial=initial))
    assert not mixed.record.triggered and outcomes(mixed) == [None] * 4


# --- the other responses of the group -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "needs_group", "seen"),
    [("all_failed", False, 3), ("some_failed", True, 3), ("always", False, 0), ("always", True, 3)],
)
@pytest.mark.asyncio
async def test_the_critic_sees_the_other_responses(trigger: str, needs_group: bool, seen: int) -> None:
    world = World(options(trigger=trigger), initial=(0, 0, 0, 0.5), needs_group=needs_group)
    await run(world)
    for subject in world.subjects:
        others = [Sibling(f"answer {slot}", score) for slot, score in enumerate((0, 0, 0, 0.5))]
        own = [sibling for sibling in others if sibling.text != subject.response]
        assert subject.siblings == (tuple(own) if seen else ())


@pytest.mark.asyncio
async def test_always_waits_for_the_group_only_where_the_critic_has_to_see_it() -> None:
    for needs_group in (True, False):
        world = World(options(trigger="always"), sampling=(1, 50, 50, 50), needs_group=needs_group)
        await run(world)
        last_sample = max(world.ended.index(f"sample {slot}") for slot in range(4))
        assert (world.ended.index("critique 0") > last_sample) == needs_group


# --- no barriers ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_always_refines_a_response_while_others_are_sampled() -> None:
    world = World(options(trigger="always"), sampling=(1, 50, 50, 50))
    await run(world)
    assert world.ended.index("refine 0") < min(world.ended.index(f"sample {slot}") for slot in (1, 2, 3))


@pytest.mark.asyncio
async def test_all_failed_waits_for_the_whole_group_and_for_nothing_else() -> None:
    world = World(options(trigger="all_failed"), sampling=(1, 50, 2, 3), critiquing=(50, 1, 1, 1))
    await run(world)
    assert world.started.index("critique 0") > world.ended.index("sample 1")
    assert world.ended.index("refine 1") < world.ended.index("critique 0")  # critiques and refinements overlap


# --- responses that are not refined ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_critique_without_text_skips_the_response() -> None:
    def says(subject: Subject) -> Critique:
        return Critique(None if subject.response == "answer 1" else "", valid=False)

    world = World(options(num=1), refined=(0, 1, 0, 0), says=says)
    mixed = await run(world)
    assert refined_slots(mixed) == [0, 2, 3]  # "" is refined, without a critique
    assert outcomes(mixed)[1] == "critique skipped" and mixed.record.responses[1].critique == Critique(
        None, valid=False
    )


@pytest.mark.parametrize(("scores", "left"), [((None, 1, None, 0), [1, 3]), ((None,) * 4, [])])
@pytest.mark.asyncio
async def test_a_request_that_does_not_fit_is_counted(scores: tuple[float | None, ...], left: list[int]) -> None:
    mixed = await run(World(options(num=3), refined=scores))
    assert refined_slots(mixed) == left
    assert outcomes(mixed).count("prompt too long") == 4 - len(left)
    assert refined(mixed) == [True] * len(left) + [False] * (4 - len(left)) and len(mixed.samples) == 4


@pytest.mark.asyncio
async def test_a_refinement_that_nobody_writes_is_counted_and_the_others_go_on() -> None:
    mixed = await run(World(options(num=2), refined=(UNWRITTEN, 1, UNWRITTEN, None)))
    assert refined_slots(mixed) == [1]
    assert outcomes(mixed) == ["generator failed", "selected", "generator failed", "prompt too long"]
    assert refined(mixed) == [True, False, False, False]


# --- stop_after_correct ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["all_failed", "always"])
@pytest.mark.asyncio
async def test_stop_after_correct_cancels_the_rest(trigger: str) -> None:
    """Slots 0 and 2 finish and are right, 1 is being refined, 3 is being critiqued."""
    world = World(
        options(trigger=trigger, num=2, stop_after_correct=True),
        refined=(1, 0, 1, 0),
        critiquing=(1, 1, 1, FOREVER),
        refining=(1, FOREVER, 9, 1),
    )
    mixed = await run(world)
    assert sorted(world.cancelled) == ["critique 3", "refine 1"]
    assert outcomes(mixed) == ["selected", "aborted", "selected", "aborted"]
    assert refined_slots(mixed) == [0, 2]
    assert set(rows(mixed)[:2]) == {"refined row 0", "refined row 2"} and refined(mixed) == [True, True, False, False]


@pytest.mark.asyncio
async def test_stop_after_correct_leaves_responses_alone() -> None:
    """Whoever is not sampled yet when k are correct is not refined any more, and still joins the group."""
    world = World(options(trigger="always", stop_after_correct=True), refined=(1, 0, 0, 0), sampling=(1, 50, 50, 50))
    mixed = await run(world)
    assert rows(mixed) == ["refined row 0", "row 1", "row 2", "row 3"]
    assert world.cancelled == [] and world.asked() == {"answer 0": 1}
    assert outcomes(mixed) == ["selected", "aborted", "aborted", "aborted"]


@pytest.mark.parametrize(
    ("stop", "scores"), [(False, (1, 1, 1, 1)), (True, (1, 0, 0, 0)), (True, (0.9, 1, 0.9, 0))], ids=str
)
@pytest.mark.asyncio
async def test_nobody_is_cancelled_without_the_option_or_before_k_are_correct(
    stop: bool, scores: tuple[float, ...]
) -> None:
    world = World(options(num=2, stop_after_correct=stop), refined=scores, refining=(1, 20, 5, 9))
    mixed = await run(world)
    assert world.cancelled == [] and "aborted" not in outcomes(mixed) and len(mixed.record.refinements) == 4


# --- the critic as the source of the reward -------------------------------------------------------------------------


def judged(subject: Subject) -> Critique:
    """Only response 1 and refinement 2 are right; of response 3 nothing can be said."""
    verdict = None if subject.response == "answer 3" else subject.response in ("answer 1", "better 2")
    return Critique("hm", verdict, tokens=7)


@pytest.mark.parametrize("trigger", ["always", "all_failed"])
@pytest.mark.asyncio
async def test_the_verdict_becomes_the_score(trigger: str) -> None:
    settings = options(source="critique", critique="cot", trigger=trigger)
    world = World(settings, initial=(1, 0, 1, 1), refined=(1, 1, 0, 1), says=judged)
    mixed = await run(world)
    assert [item.score for item in mixed.record.responses] == [0, 1, 0, 0]
    assert all(subject.correct is None for subject in world.subjects)
    assert set(world.asked().values()) == {1}  # one critique scores a response and is refined from
    if trigger == "all_failed":  # response 1 is right, the critic says: nothing to refine
        assert len(world.subjects) == 4 and refined(mixed) == [False] * 4
        assert [sample.score for sample in mixed.samples] == [0, 1, 0, 0]
    else:
        assert [item.score for item in mixed.record.refinements] == [0, 0, 1, 0]
        assert {item.critique for item in mixed.record.refinements} == {Critique("hm", False, tokens=7), judged(right)}
        assert rows(mixed) == ["refined row 2", "row 1", "row 2", "row 3"]
        assert [sample.score for sample in mixed.samples] == [1, 1, 0, 0]
        assert world.clock.times().tokens["critique"] == 8 * 7
        assert len({subject.seed for subject in world.subjects}) == 8  # a response and its refinement have their own


right = Subject("1+1?", "better 2", "2", None, 0)


@pytest.mark.parametrize("settings", [{"num": 0}, {"trigger": "never"}, {"num": 0, "trigger": "always"}])
@pytest.mark.asyncio
async def test_the_critic_scores_groups_that_are_never_refined(settings: dict[str, Any]) -> None:
    world = World(options(source="critique", critique="cot", **settings), initial=(1, 1, 1, 1), says=judged)
    mixed = await run(world)
    assert [sample.score for sample in mixed.samples] == [0, 1, 0, 0] and refined(mixed) == [False] * 4
    assert not mixed.record.triggered


@pytest.mark.asyncio
async def test_stop_after_correct_goes_by_the_verdict() -> None:
    settings = options(source="critique", critique="cot", trigger="always", stop_after_correct=True)
    world = World(settings, refined=(1, 1, 0, 1), refining=(1, 2, 20, FOREVER), says=judged)
    mixed = await run(world)
    assert rows(mixed)[0] == "refined row 2" and world.cancelled == ["refine 3"]


# --- the same again -------------------------------------------------------------------------------------------------


async def choices(seed: int = 42, scores: tuple[float, ...] = (0, 0, 0, 0), order: int = 0) -> list[list[str]]:
    """What 30 groups select, with refinements arriving in an order of their own."""
    chosen = []
    for index in range(30):
        refining = random.Random(f"{order} {index}").sample(range(20), 4)
        world = World(options(seed=seed, num=2), refined=scores, refining=refining)
        chosen.append(rows(await world.mixed_group(replace(QUESTION, index=str(index))))[:2])
    return chosen


@pytest.mark.parametrize("scores", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 1)], ids=str)
@pytest.mark.asyncio
async def test_the_seed_decides_and_the_order_of_arrival_does_not(scores: tuple[float, ...]) -> None:
    first = await choices(scores=scores)
    assert await choices(scores=scores) == first == await choices(scores=scores, order=1)
    assert await choices(seed=43, scores=scores) != first
    assert len({tuple(group) for group in first}) > 1


@pytest.mark.asyncio
async def test_the_critics_seeds_can_be_repeated() -> None:
    async def seeds(**changes: Any) -> set[int]:
        world = World(options(seed=changes.pop("seed", 42)))
        await world.mixed_group(replace(QUESTION, **changes))
        return {subject.seed for subject in world.subjects}

    first = await seeds()
    assert await seeds() == first
    for others in (await seeds(seed=43), await seeds(step=4), await seeds(index="18")):
        assert not first & others
