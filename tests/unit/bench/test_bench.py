"""The benchmark's simulation: exact where a result can be worked out by hand, and its tables."""

import asyncio
import time
from pathlib import Path

import pytest

from recipe.critique_grpo.bench.__main__ import main, table_lines
from recipe.critique_grpo.bench.designs import ALL_FAILED, ALWAYS, Design
from recipe.critique_grpo.bench.simulation import SimulatedServer, Speed, floor_s, run_virtually, simulate
from recipe.critique_grpo.bench.workload import Workload

pytestmark = pytest.mark.unit

SPEED = Speed(step_s=1.0, row_s=0.5, max_num_seqs=2)


def serve(*requests: tuple[int, int], cancel_at: float | None = None) -> tuple[list[float], int]:
    """When each (tokens, priority) ends, sent in this order at time 0, and how many tokens were generated."""

    async def run() -> tuple[list[float], int]:
        server, loop = SimulatedServer(SPEED), asyncio.get_running_loop()
        ends = [0.0] * len(requests)

        async def send(number: int) -> None:
            await server.generate(*requests[number])
            ends[number] = loop.time()

        tasks = [asyncio.ensure_future(send(number)) for number in range(len(requests))]
        if cancel_at is not None:
            await asyncio.sleep(cancel_at)
            tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        return ends, server.tokens

    return run_virtually(run())


def test_virtual_time_does_not_pass() -> None:
    started = time.monotonic()
    assert run_virtually(asyncio.sleep(3600, "done")) == "done"
    assert time.monotonic() - started < 5


def test_virtual_time_says_so_when_nothing_can_happen() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nobody will do"):
        run_virtually(wait_for_ever())


def test_a_step_costs_its_rows_and_gives_each_a_token() -> None:
    assert serve((3, 0)) == ([4.5], 3)  # 3 steps of one row
    assert serve((1, 0), (3, 0)) == ([2.0, 5.0], 4)  # a step of two rows, two of one


def test_what_does_not_fit_waits_in_order_of_priority() -> None:
    ends, _ = serve((2, 0), (2, 0), (1, 0), (1, -1))
    assert ends[3] <= ends[2]
    assert serve((2, 0), (2, 0), (1, 0))[0] == [4.0, 4.0, 5.5]


def test_a_cancelled_request_leaves_its_place() -> None:
    (_, second, third), tokens = serve((50, 0), (4, 0), (1, 0), cancel_at=3.0)
    assert third < 10 and second < 12
    assert tokens < 10


WORKLOAD = Workload(prompts=16, n=4)
FAST = Speed(step_s=0.01, row_s=0.0001, max_num_seqs=32)


def test_designs_do_the_same_work_but_for_what_they_abort() -> None:
    outcomes = {name: run_virtually(simulate(WORKLOAD, design, FAST)) for name, design in ALWAYS.items()}
    barriers, ours, stopping = outcomes.values()
    assert ours.tokens == barriers.tokens
    assert ours.seconds < barriers.seconds
    assert stopping.tokens < ours.tokens
    assert stopping.seconds < ours.seconds
    assert stopping.selected_tokens < ours.selected_tokens  # the bias that the documentation warns of


def test_all_failed_refines_the_failing_share_only() -> None:
    plain, ours, _ = (run_virtually(simulate(WORKLOAD, design, FAST)) for design in ALL_FAILED.values())
    assert plain.selected_tokens == 0
    assert plain.tokens < ours.tokens < 1.5 * plain.tokens


@pytest.mark.parametrize("judge_s", [0.0, 5.0])
@pytest.mark.parametrize("rows", [4, 32, 1000])
def test_no_design_is_below_its_floor_and_a_server_that_is_never_idle_is_at_it(rows: int, judge_s: float) -> None:
    speed = Speed(step_s=0.01, row_s=0.0001, max_num_seqs=rows)
    for designs in (ALWAYS, ALL_FAILED):
        for design in designs.values():
            outcome = run_virtually(simulate(WORKLOAD, design, speed, judge_s))
            floor = floor_s(WORKLOAD, design, speed, outcome.tokens, judge_s)
            assert floor <= outcome.seconds + 1e-6
            if rows == 4 and design == Design():
                assert outcome.seconds < 1.05 * floor + 2 * judge_s


def test_the_floor_of_requests_that_wait_for_each_other() -> None:
    alone = Workload(prompts=1, n=1)
    sample, refinement = (alone.length((0, 0, stage)) for stage in ("sample", "refine"))
    found = floor_s(alone, Design(), SPEED, sample + refinement, judge_s=7.0)
    assert found == 1.5 * (sample + refinement) + 7.0
    assert found == run_virtually(simulate(alone, Design(), SPEED, judge_s=7.0)).seconds


def test_waiting_for_a_judge_overlaps_with_generation() -> None:
    barriers, ours = (
        run_virtually(simulate(WORKLOAD, Design(barriers=barriers), FAST, judge_s=5.0)) for barriers in (True, False)
    )
    assert ours.seconds < barriers.seconds - 1


def test_the_same_workload_twice() -> None:
    first, second = (run_virtually(simulate(WORKLOAD, Design(), FAST)) for _ in range(2))
    assert (first.tokens, first.selected_tokens) == (second.tokens, second.selected_tokens)
    assert first.seconds == pytest.approx(second.seconds)
    assert first != run_virtually(simulate(Workload(prompts=16, n=4, seed=1), Design(), FAST))


def test_workload() -> None:
    workload = Workload(prompts=100)
    failing = [question for question in range(100) if not workload.correct((question, 0, "sample"))]
    assert len(failing) == 20
    assert workload.critiques("all_failed") == 160 and workload.critiques("always") == 800
    lengths = [workload.length((question, slot, "sample")) for question in range(100) for slot in range(8)]
    assert 1 <= min(lengths) and max(lengths) == workload.cap
    assert 40 < sorted(lengths)[400] < 60


def test_tables_compare_within_a_round() -> None:
    names = list(ALWAYS)
    runs = [
        {"round": number, "table": "always", "design": name, "seconds": seconds, "tokens": 10, "selected_tokens": 5.0}
        for number, all_seconds in enumerate([(10.0, 5.0, 1.0), (20.0, 10.0, 8.0), (10.0, 9.0, 1.0)])
        for name, seconds in zip(names, all_seconds, strict=True)
    ]
    rows = list(table_lines(runs, "always"))[2:]
    assert rows[1] == f"| {names[1]} | 9.0 | 0.50 | 0.50-0.90 | 1.00 | 5 |"
    assert rows[2] == f"| {names[2]} | 1.0 | 0.10 | 0.10-0.40 | 1.00 | 5 |"


def test_a_server_of_any_speed_is_simulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recipe.critique_grpo.bench.__main__.SIMULATED", ((8, 0.0), (8, 5.0)))
    speed = ["--step_ms", "10", "--row_ms", "0.1", "--max_num_seqs", "32"]
    monkeypatch.setattr("sys.argv", ["bench", "--out", str(tmp_path), "--rounds", "2", *speed])
    main()
    text = (tmp_path / "bench.md").read_text()
    assert text.count("| trigger always |") == text.count("| trigger all_failed |") == 2
    assert "10.00 ms + 0.100 ms a row, at most 32 rows" in text and text in capsys.readouterr().out


@pytest.mark.parametrize("speed", [["--step_ms", "10"], ["--step_ms", "10", "--row_ms", "1", "--measured", "m.json"]])
def test_half_a_speed_and_two_speeds_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speed: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--out", str(tmp_path), *speed])
    with pytest.raises(SystemExit):
        main()
