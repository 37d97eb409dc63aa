"""The policy as its own teacher that has seen its peers: whom it sees, under which prompt it speaks, what that adds."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from verl import DataProto

from recipe.critique_grpo.core_algos import compute_shaped_token_loss
from recipe.critique_grpo.rollout.peer_context import choose_peers
from recipe.critique_grpo.rollout.records import GroupRecord, teacher_metrics
from recipe.critique_grpo.trainer.distillation import distilled, teacher_prompts, under_prompts

pytestmark = pytest.mark.unit

GROUP = [
    ("right a", True),
    ("wrong b", False),
    ("right c", True),
    ("right c", True),
    ("wrong d", False),
    ("right e", True),
]


@pytest.mark.parametrize("slot", range(len(GROUP)))
def test_two_correct_peers_and_a_failed_one_and_never_oneself(slot: int) -> None:
    seen = set()
    for seed in range(30):
        right, wrong = choose_peers(GROUP, slot, seed)
        assert len(right) == len(set(right)) == 2 and len(wrong) == 1
        assert GROUP[slot][0] not in right + wrong
        assert all(text.startswith("right") for text in right) and wrong[0].startswith("wrong")
        assert choose_peers(GROUP, slot, seed) == (right, wrong)
        seen |= {*right, *wrong}
    assert seen == {text for text, _ in GROUP} - {GROUP[slot][0]}, "the seed chooses among all"


def test_without_peers_of_a_kind_the_others_stand_alone() -> None:
    assert choose_peers([("a", False), ("b", False)], 0, 1) == ([], ["b"])
    assert choose_peers([("a", True), ("a", True)], 0, 1) == ([], [])


def batch() -> DataProto:
    """Two rows: prompts of 2 and 3 tokens, responses of 2 and 1, padded to 3 and 2."""
    prompts = torch.tensor([[0, 5, 6], [7, 8, 9]])
    responses = torch.tensor([[1, 2], [3, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    tensors = {
        "prompts": prompts,
        "responses": responses,
        "input_ids": torch.cat([prompts, responses], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "response_mask": mask[:, 3:],
    }
    columns = {"uid": np.array(["a", "b"], dtype=object), "slot": np.array([1, 0], dtype=object)}
    return DataProto.from_dict(tensors=tensors, non_tensors=columns, meta_info={"temperature": 0.5})


def record(uid: str, *teachers: Any) -> GroupRecord:
    return GroupRecord(1, "0", "", "", "always", "random", uid=uid, teachers=list(teachers))


def test_a_row_finds_its_teacher_by_group_and_slot() -> None:
    assert teacher_prompts(batch(), [record("b", None, (9,)), record("a", (1,), (2, 3))]) == [(2, 3), ()]
    assert teacher_prompts(batch(), [record("b", (4,))]) == [(), (4,)]
    metrics = teacher_metrics([record("b", None, (9,)), record("a", (), (2, 3))])
    assert metrics == {"teacher_rows": 2, "teacher_too_long": 1} and teacher_metrics([record("a")]) == {}


def test_responses_keep_their_places_under_another_prompt() -> None:
    found = under_prompts(batch(), [(21, 22, 23, 24), ()], pad_token_id=99)
    assert found.batch["prompts"].tolist() == [[21, 22, 23, 24], [99, 7, 8, 9]]
    assert found.batch["input_ids"].tolist() == [[21, 22, 23, 24, 1, 2], [99, 7, 8, 9, 3, 0]]
    assert found.batch["attention_mask"].tolist() == [[1] * 6, [0, 1, 1, 1, 1, 0]]
    assert found.batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 3]]
    assert found.batch["response_mask"].equal(batch().batch["response_mask"]) and found.meta_info == {
        "temperature": 0.5
    }


def test_with_their_own_prompts_rows_are_as_they_were() -> None:
    found, own = under_prompts(batch(), [(), ()], pad_token_id=0), batch()
    for name in own.batch.keys():
        there = own.batch["attention_mask"].bool()
        same = found.batch[name].equal(own.batch[name])
        assert same or found.batch[name][there].equal(own.batch[name][there]), name


def test_where_the_teacher_says_the_same_nothing_changes() -> None:
    advantages, old, mask = torch.randn(3, 4), -torch.rand(3, 4), torch.ones(3, 4)
    assert distilled(advantages, old, old, mask, coef=0.7, clip=5.0).equal(advantages)
    told = old + torch.tensor([0.5, -9.0, 9.0, 1.0])
    mask[:, -1] = 0
    added = distilled(advantages, old, told, mask, coef=0.1, clip=2.0) - advantages
    torch.testing.assert_close(added, torch.tensor([0.05, -0.2, 0.2, 0.0]).expand(3, 4), atol=1e-6, rtol=0)


def test_the_expected_gradient_is_that_of_the_divergence() -> None:
    """All responses of two tokens over a vocabulary of three, enumerated."""
    torch.manual_seed(3)
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    expected = torch.zeros((), dtype=torch.float64)
    for tokens in itertools.product(range(3), repeat=2):
        chosen = torch.tensor(tokens).unsqueeze(1)
        new, told = policy.gather(1, chosen).T, teacher.gather(1, chosen).T
        old, mask = new.detach(), torch.ones(1, 2, dtype=torch.float64)
        advantages = distilled(torch.zeros_like(old), old, told, mask, coef=0.3, clip=50.0)
        loss = compute_shaped_token_loss(old, new, advantages, torch.tensor([False]), gamma=0.1).sum()
        expected = expected + old.sum().exp() * loss
    (found,) = torch.autograd.grad(expected, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(0.3 * (policy.exp() * (policy - teacher)).sum(), logits)
    torch.testing.assert_close(found, wanted)
