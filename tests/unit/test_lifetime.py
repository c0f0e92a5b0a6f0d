"""The end of a process: what is due then, in which order, and that nothing is left out; loops that live until then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poe_gateway.bootstrap.lifetime import Ending, Tasks
from poe_gateway.telemetry.hub import Telemetry


class Diary:
    """What was done, in order; what is named ``bad`` fails."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ending = Ending()

    def entry(self, name: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            self.lines.append(name)
            if name == "bad":
                raise RuntimeError(name)

        return write

    def due(self, *steps: str) -> None:
        """Told in this order; those in brackets are handed over, the others closed."""
        for step in steps:
            name = step.strip("()")
            (self.ending.close if name == step else self.ending.hand_over)(self.entry(name))


@pytest.mark.parametrize(
    ("told", "done"),
    [
        pytest.param((), [], id="nothing"),
        pytest.param(("client", "http", "bell"), ["bell", "http", "client"], id="closed-last-first"),
        pytest.param(("(pool)", "(books)"), ["pool", "books"], id="handed-over-first-first"),
        pytest.param(
            ("client", "(pool)", "http", "(books)", "bell"),
            ["pool", "books", "bell", "http", "client"],
            id="handed-over-before-anything-is-closed",
        ),
    ],
)
async def test_what_is_due_at_the_end_comes_in_its_order(told: tuple[str, ...], done: list[str]) -> None:
    diary = Diary()
    diary.due(*told)
    await diary.ending()
    assert diary.lines == done


@pytest.mark.parametrize(
    "told",
    [("client", "(bad)", "(books)", "bell"), ("client", "bad", "(books)", "bell")],
    ids=["handed-over", "closed"],
)
async def test_a_step_that_fails_keeps_no_other_from_being_done(told: tuple[str, ...]) -> None:
    diary = Diary()
    diary.due(*told)
    with pytest.raises(RuntimeError, match="bad"):
        await diary.ending()
    assert sorted(diary.lines) == sorted(step.strip("()") for step in told)


async def test_a_second_end_does_nothing() -> None:
    diary = Diary()
    diary.due("client", "(pool)")
    await diary.ending()
    await diary.ending()
    assert diary.lines == ["pool", "client"]


async def test_tasks_run_until_they_are_stopped_loops_and_errands_alike() -> None:
    tasks, lines = Tasks(Telemetry()), list[str]()
    begun = asyncio.Event()

    async def loop() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            lines.append("loop ended")

    async def errand() -> None:
        lines.append("errand done")

    tasks.keep("loop", loop)
    tasks.soon(errand())
    await begun.wait()
    await asyncio.sleep(0)
    await tasks.stop()
    assert lines == ["errand done", "loop ended"]
