"""Through the real system (Ray, FSDP, vLLM on CPU): whole groups, shaping in the gradient, 1 rank = 2 ranks."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import run_logged

pytestmark = pytest.mark.integration
PROBE = Path(__file__).with_name("probe.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def one_rank(folder: Path, overrides: list[str], cpu_environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(PROBE), str(folder / "one.json"), str(folder / "batch.pt"), *overrides]
    command += ["actor_rollout_ref.rollout.agent.num_workers=3", "actor_rollout_ref.rollout.max_model_len=1024"]
    command += ["actor_rollout_ref.rollout.disable_log_stats=false"]
    run_logged(command, folder / "one.log", {**cpu_environment, "PYTHONPATH": str(PROBE.parent)}, timeout=600)
    return json.loads((folder / "one.json").read_text())


@pytest.mark.parametrize("workers", ["1", "2", "3"])
def test_groups_are_whole_with_any_number_of_workers(one_rank: dict[str, Any], workers: str) -> None:
    groups = one_rank["groups"][workers]
    assert groups["rows"] == [4] * 6
    assert groups["refined"] == [1] * 6  # a random model fails every group
    assert groups["records"] == 6
    assert groups["one_prompt_a_group"], "refinement rows are trained on the question's prompt"
    assert groups["texts_as_selected"], "refinement rows hold the sampled refinement"


def test_a_cancelled_request_ends_in_vllm(one_rank: dict[str, Any]) -> None:
    found = one_rank["aborts"]
    assert (found["tokens"], found["left"]) == (600, 0)
    assert 600 <= found["generated"] < 3 * 600, "all four together would have been 2400"


def test_gamma_changes_the_gradient_of_refinement_rows_only(one_rank: dict[str, Any]) -> None:
    refinements, plain = one_rank["refinements_only"], one_rank["plain"]
    # d rho / d log pi = rho (1 - rho) is close to pi / gamma for the tiny probabilities of a random model.
    ratio = refinements["0.1"]["grad_norm"] / refinements["0.5"]["grad_norm"]
    assert ratio == pytest.approx(5, rel=0.02)
    assert plain["0.5"]["grad_norm"] == pytest.approx(plain["0.1"]["grad_norm"], rel=1e-6)
    assert plain["0.1"]["grad_norm"] > 0


@pytest.fixture(scope="module")
def two_ranks(
    one_rank: dict[str, Any], folder: Path, overrides: list[str], cpu_environment: dict[str, str]
) -> dict[str, Any]:
    """With the batch that one rank has made; and two rollout servers."""
    command = [sys.executable, str(PROBE), str(folder / "two.json"), str(folder / "batch.pt"), *overrides]
    command += ["trainer.n_gpus_per_node=2", "critique_grpo.check_data=false"]
    command += ["actor_rollout_ref.rollout.max_model_len=1024", "actor_rollout_ref.rollout.disable_log_stats=false"]
    environment = {**cpu_environment, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": str(PROBE.parent)}
    run_logged(command, folder / "two.log", environment, timeout=600)
    return json.loads((folder / "two.json").read_text())


@pytest.mark.slow
def test_a_refinement_finds_question_and_response_in_its_servers_cache(two_ranks: dict[str, Any]) -> None:
    found = two_ranks["cached"]
    print(f"prompt tokens found in the cache: {found}")
    block = 32  # of the CPU tier; the last one is not full
    assert found["now"] > found["known"] - 2 * block
    # Under another id it goes to either server: of two, half of the refinements find nothing, on average.
    assert found["text"] + found["tokens"] < 2 * found["now"]


@pytest.mark.slow
def test_two_ranks_give_the_loss_of_one(one_rank: dict[str, Any], two_ranks: dict[str, Any]) -> None:
    for rows in ("mixed", "refinements_only", "plain"):
        for gamma in ("0.1", "0.5"):
            assert two_ranks[rows][gamma]["loss"] == pytest.approx(one_rank[rows][gamma]["loss"], rel=1e-4, abs=1e-7)
            assert two_ranks[rows][gamma]["grad_norm"] == pytest.approx(one_rank[rows][gamma]["grad_norm"], rel=1e-3)


RANKS = ["one_rank", pytest.param("two_ranks", marks=pytest.mark.slow)]


@pytest.mark.parametrize("role", ["critic", "refiner"])
@pytest.mark.parametrize("ranks", RANKS)
def test_rows_of_a_role_add_their_own_plain_gradient_and_change_no_other(
    ranks: str, role: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(ranks)["roles"][role]
    print(f"{ranks}, {role}: {found}")
    assert found["largest"] > 1e-4
    assert found["others"] > 1e-5
    assert found["sum"] < min(1e-6, 1e-2 * found["others"])
    assert found["plain"] < min(1e-6, 1e-3 * found["largest"])


@pytest.mark.parametrize("ranks", RANKS)
def test_what_a_step_leaves_out_changes_no_gradient(ranks: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(ranks)["savings"]
    nothing, whole = found.pop("nothing to learn"), found.pop("whole groups")
    assert len(found) == 8
    for name, measured in found.items():
        print(f"{ranks}, {name}: {measured}")
        assert measured["largest"] > 1e-4
        assert measured["difference"] < min(1e-6, 1e-3 * measured["largest"]), name
        assert measured["zero_advantage_fraction"] == pytest.approx(1 / 3)
        assert ("old_log_prob" in name or "all" in name) == (measured["entropy"] is not None)
    assert nothing["largest"] == 0
    assert whole["groups"] == 2, "of six, with three mini-batches"
    assert whole["difference"] < min(1e-6, 1e-3 * whole["largest"])
