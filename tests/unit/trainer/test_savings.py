"""What a step leaves out: which rows an update must compute, and when a saving is off."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from test_policy_loss import CONFIG_DIR
from verl.utils import tensordict_utils as tu

from recipe.critique_grpo.trainer.savings import (
    MINI_BATCH_ROWS,
    let_update_report_entropy,
    old_log_probs_are_needless,
    rows_to_update,
    rows_without_advantage_are_needless,
    with_mini_batch_rows,
)

pytestmark = pytest.mark.unit


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    ranks, mini_batches = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 4]))
    multiple, n = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4]))
    groups = ranks * mini_batches * draw(st.integers(1, 3))
    live = draw(st.lists(st.booleans(), min_size=groups, max_size=groups))
    rows = groups * n
    lengths = draw(st.lists(st.integers(1, 50), min_size=rows, max_size=rows))
    return {
        "needed": torch.tensor(live).repeat_interleave(n),
        "lengths": torch.tensor(lengths),
        "uids": [f"group {row // n}" for row in range(rows)],
        "ranks": ranks,
        "mini_batches": mini_batches,
        "multiple": multiple,
    }


@settings(deadline=None)
@given(batches())
def test_every_needed_row_is_computed_once_in_its_own_mini_batch(batch: dict[str, Any]) -> None:
    needed, ranks, mini_batches = batch["needed"], batch["ranks"], batch["mini_batches"]
    chosen = rows_to_update(**batch)

    rows = chosen.tolist()
    assert len(set(rows)) == len(rows)
    assert set(needed.nonzero().flatten().tolist()) <= set(rows)
    size, rest = divmod(len(rows), ranks * mini_batches)
    assert rest == 0 and size >= 1 and size % batch["multiple"] == 0

    before = torch.arange(len(needed)).view(ranks, mini_batches, -1)
    after = chosen.view(ranks, mini_batches, -1)
    most = 0
    for i in range(mini_batches):
        assert set(after[:, i].flatten().tolist()) <= set(before[:, i].flatten().tolist())
        most = max(most, int(needed[before[:, i]].sum()))
    step = ranks * batch["multiple"]
    assert size * ranks == max(step, -(-most // step) * step), "no more than the fullest mini-batch needs"


def test_the_shortest_needless_rows_fill_up() -> None:
    lengths = torch.tensor([9, 9, 9, 9, 5, 2, 7, 3])
    needed = torch.tensor([True] * 3 + [False] * 5)
    chosen = rows_to_update(needed, lengths, list("aaaabbbb"), ranks=2, mini_batches=1, multiple=3)
    assert sorted(chosen.tolist()) == [0, 1, 2, 4, 5, 7]


def test_with_nothing_to_learn_each_rank_computes_its_shortest_row() -> None:
    lengths = torch.tensor([4, 3, 9, 9, 5, 2])
    chosen = rows_to_update(torch.zeros(6, dtype=torch.bool), lengths, list("aaabbb"), ranks=1, mini_batches=2)
    assert chosen.tolist() == [1, 5]


def test_groups_stay_together_where_they_can() -> None:
    uids = [f"{row // 4}" for row in range(24)]
    lengths = torch.arange(24) + 1
    chosen = rows_to_update(torch.arange(24) >= 8, lengths, uids, ranks=2, mini_batches=1)
    parts = [{uids[row] for row in part.tolist()} for part in chosen.view(2, 8)]
    assert not parts[0] & parts[1]


def config(*overrides: str) -> Any:
    with initialize_config_dir(CONFIG_DIR, version_base=None):
        return compose("critique_grpo_trainer", overrides=["tier=cpu", "data.train_batch_size=8", *overrides])


ACTOR = "actor_rollout_ref.actor"
ONE = f"{ACTOR}.ppo_mini_batch_size=8"
TWO = f"{ACTOR}.ppo_mini_batch_size=4"


@pytest.mark.parametrize(
    ("overrides", "needless"),
    [
        ([ONE], True),
        ([TWO], False),
        ([ONE, "+data.gen_batch_size=16"], False),
        ([TWO, "+data.gen_batch_size=4"], True),
        ([ONE, "trainer.critic_warmup=3"], False),
        ([ONE, f"{ACTOR}.ppo_epochs=2"], False),
        ([ONE, "algorithm.use_kl_in_reward=true"], False),
        ([ONE, "actor_rollout_ref.rollout.calculate_log_probs=true"], False),
        ([ONE, f"{ACTOR}.calculate_sum_pi_squared=true"], False),
        ([ONE, f"+{ACTOR}.megatron.router_replay.mode=R2"], False),
        ([ONE, f"{ACTOR}.use_kl_loss=true", f"{ACTOR}.entropy_coeff=0.1"], True),
    ],
)
def test_old_log_probs_are_needless_only_strictly_on_policy(overrides: list[str], needless: bool) -> None:
    assert old_log_probs_are_needless(config(*overrides)) is needless


@pytest.mark.parametrize(
    ("overrides", "needless"),
    [
        ([ONE], True),
        ([TWO], True),
        ([ONE, f"{ACTOR}.shuffle=true"], True),
        ([TWO, f"{ACTOR}.shuffle=true"], False),
        ([TWO, f"{ACTOR}.strategy=megatron"], False),
        ([ONE, f"{ACTOR}.use_kl_loss=true"], False),
        ([ONE, f"{ACTOR}.entropy_coeff=0.001"], False),
        ([ONE, f"{ACTOR}.loss_agg_mode=token-mean"], False),
        ([ONE, f"{ACTOR}.loss_agg_mode=token-sum"], False),
        ([ONE, f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"], True),
        ([ONE, f"{ACTOR}.loss_scale_factor=null"], False),
    ],
)
def test_rows_are_left_out_only_where_nothing_else_depends_on_them(overrides: list[str], needless: bool) -> None:
    assert rows_without_advantage_are_needless(config(*overrides)) is needless


def test_the_update_reports_the_entropy_and_keeps_no_graph_for_a_mere_metric() -> None:
    metric, term = config(), config(f"{ACTOR}.entropy_coeff=0.1")
    for composed in (metric, term):
        let_update_report_entropy(composed)
        assert composed.actor_rollout_ref.actor.calculate_entropy
    assert metric.actor_rollout_ref.actor.fsdp_config.entropy_checkpointing
    assert not term.actor_rollout_ref.actor.fsdp_config.entropy_checkpointing


@pytest.mark.parametrize(("rows", "expected"), [(None, 32), (24, 24)])
def test_the_number_of_rows_travels_with_the_batch_and_the_divisor_stays(rows: int | None, expected: int) -> None:
    data = TensorDict({"x": torch.zeros(4)}, batch_size=4)
    tu.assign_non_tensor(data, mini_batch_size=32, global_batch_size=32)
    if rows is not None:
        tu.assign_non_tensor(data, **{MINI_BATCH_ROWS: rows})
    sent = with_mini_batch_rows(lambda data: data)(data)
    assert (tu.get(sent, "mini_batch_size"), tu.get(sent, "global_batch_size")) == (expected, 32)
    assert MINI_BATCH_ROWS not in sent
