"""``poe-gateway simulate``."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from poe_gateway.cli.simulate import simulate
from tests.simulation.test_backtest import answered, decision, lines


def call(*arguments: str, text: str | None = None):
    return CliRunner().invoke(simulate, arguments, input=text)


def test_a_clean_run_is_one_line_and_exit_code_0() -> None:
    answer = call("--seed", "5", "--days", "0.05")
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("seed 5: ")
    assert "no violation" in answer.output
    assert answer.output.count("\n") == 1


def test_a_planted_bug_is_shown_and_ends_with_exit_code_1() -> None:
    answer = call("--seed", "3", "--plant", "lost_slot")
    assert answer.exit_code == 1
    assert "VIOLATION" in answer.output
    assert "Broken promise: slots and leases agree" in answer.output
    assert "The last 30 events:" in answer.output


def test_several_seeds_over_several_processes_are_told_in_order() -> None:
    answer = call("--seeds", "5..7", "--days", "0.02", "--jobs", "2")
    assert answer.exit_code == 0, answer.output
    assert [line.split(":")[0] for line in answer.output.splitlines()] == [
        "seed 5",
        "seed 6",
        "seed 7",
        "3 runs, 0 with a broken promise",
    ]


def test_verbose_shows_every_event() -> None:
    answer = call("--seed", "5", "--days", "0.02", "--verbose", "--processes", "1", "--pool", "2")
    assert answer.exit_code == 0, answer.output
    assert "p0.1 is born" in answer.output
    assert "1 processes, 2 accounts" in answer.output


def test_a_backtest_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    text = "\n".join(lines(*[decision(n, 0.0, answered("acc_a")) for n in range(3)]))
    file = tmp_path / "records.jsonl"
    file.write_text(text)
    answer = call("--from-records", str(file), "--policy", "max_inflight=1", "--recorded-policy", "queue_limit=50")
    assert answer.exit_code == 0, answer.output
    assert "RECORDED" in answer.output
    assert "PROPOSED" in answer.output
    assert "20.00 s" in answer.output
    assert "healthy" in answer.output
    assert call("--from-records", "-", text=text).exit_code == 0


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    for arguments, said in (
        (("--from-records", "-"), "no decision records"),
        (("--from-records", "-", "--policy", "colour=red"), "decision records"),
        (("--policy", "max_inflight=1"), "--from-records"),
        (("--seeds", "9..3"), "names no seed"),
        (("--seeds", "x"), "A..B"),
    ):
        answer = call(*arguments, text="")
        assert answer.exit_code != 0
        assert said in answer.output
        assert "Traceback" not in answer.output
