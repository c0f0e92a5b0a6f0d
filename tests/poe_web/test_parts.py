"""The parts between wire and network: router, reply, key derivation, sandbox, single flight."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from poe_gateway.chat.events import TextDelta, TextReplaced
from poe_gateway.pool.outcome import Depleted, Transient
from poe_gateway.upstreams.base import UpstreamFailure
from poe_gateway.upstreams.poe_web import formkey, load_protocol
from poe_gateway.upstreams.poe_web.flight import SingleFlight
from poe_gateway.upstreams.poe_web.frames import PushEvent
from poe_gateway.upstreams.poe_web.messages import Update
from poe_gateway.upstreams.poe_web.reply import Reply
from poe_gateway.upstreams.poe_web.router import Mailbox, Router
from poe_gateway.upstreams.poe_web.sandbox import ENGINE, PAGE, Sandbox, SandboxFailed, SandboxTimeout
from poe_gateway.upstreams.poe_web.shared import PriceWatch

PROTOCOL = load_protocol()


def event(chat_id: int | None, kind: str = "messageAdded", **data: Any) -> PushEvent:
    return PushEvent(kind, chat_id, data)


# ---------------------------------------------------------------- router


def _router() -> Router:
    return Router(early_chats=2, early_events=3, early_ttl=10.0)


async def _drained(box: Mailbox | None) -> list[Any]:
    assert box is not None
    found = []
    while (item := await box.get(0.0)) is not None:
        found.append(item.data["n"] if isinstance(item, PushEvent) else item)
    return found


async def test_early_events_wait_for_their_chat() -> None:
    router = _router()
    router.begin_send()
    for n in range(5):
        router.deliver(event(1, n=n), now=0.0)
    assert await _drained(router.open(1, new=True)) == [2, 3, 4], "the newest are kept: texts are cumulative"


async def test_early_events_are_bounded_and_expire() -> None:
    router = _router()
    router.begin_send()
    for chat in (1, 2, 3):
        router.deliver(event(chat, n=chat), now=0.0)
    assert await _drained(router.open(1, new=True)) == []
    assert await _drained(router.open(2, new=True)) == [2]
    router.deliver(event(4, n=4), now=11.0)
    assert await _drained(router.open(3, new=True)) == []
    assert await _drained(router.open(4, new=True)) == [4]


async def test_nothing_is_kept_when_no_message_goes_out() -> None:
    router = _router()
    router.deliver(event(1, n=1), now=0.0)
    assert await _drained(router.open(1, new=True)) == []


async def test_late_events_are_dropped() -> None:
    router = _router()
    router.open(1, new=True)
    router.close(1, ["m1"])
    router.begin_send()
    router.deliver(event(1, n=1), now=0.0)
    assert await _drained(router.open(1, new=False)) == [] and "m1" in router.finished
    assert router.open(1, new=False) is None, "one message at a time"


async def test_chats_stay_apart() -> None:
    router = _router()
    one, two = router.open(1, new=True), router.open(2, new=True)
    for n in range(4):
        router.deliver(event(1 + n % 2, n=n), now=0.0)
    assert await _drained(one) == [0, 2] and await _drained(two) == [1, 3]


# ---------------------------------------------------------------- reply


def _reply(*finished: str) -> Reply:
    reply = Reply(PROTOCOL, set(finished))
    reply.human = Update(message_id="h")
    return reply


def _added(text: str, *, state: str = "incomplete", author: str = "bot", mid: str = "b", **more: Any) -> PushEvent:
    return event(1, author=author, messageId=mid, state=state, text=text, **more)


def test_a_plain_answer() -> None:
    reply = _reply()
    assert reply.take_event(_added("")) is None
    assert reply.take_event(_added("Hel")) == TextDelta("Hel")
    assert reply.take_event(_added("Hello", state="complete")) == TextDelta("lo")
    assert reply.done


def test_complete_at_once() -> None:
    reply = _reply()
    assert reply.take_event(_added("Hello", state="complete")) == TextDelta("Hello") and reply.done


def test_an_answer_wholly_in_the_answer_to_the_message() -> None:
    reply = _reply()
    update = Update(message_id="b", state="complete", text="Hello")
    assert reply.take(update) == TextDelta("Hello") and reply.done


@pytest.mark.parametrize(
    "other",
    [
        _added("x", author="human", mid="h"),
        _added("x", author="chat_break", mid="c"),
        _added("x", author="pacarana", mid="p", state="complete"),
        _added("x", mid="old", state="complete"),
        _added("x", mid="h"),
        event(1, "chatTitleUpdated", title="x"),
        event(1, "messageCancelled", messageId="old"),
        event(1, "neverHeardOf", text="x"),
        event(None, author="bot", messageId="elsewhere", text="x", state="complete"),
        event(1, "messageTextUpdated", messageId="elsewhere", text="x"),
        event(1, "jobCostUpdated", totalCostPoints=5, trigger={"message": {"messageId": "old"}}),
    ],
)
def test_what_is_not_the_answer(other: PushEvent) -> None:
    reply = _reply("old")
    reply.take_event(_added("Hel"))
    assert reply.take_event(other) is None
    assert reply.text == "Hel" and not reply.done and reply.points is None


def test_partial_events_of_the_known_message() -> None:
    reply = _reply()
    reply.take_event(_added("Hel"))
    assert reply.take_event(event(None, "messageTextUpdated", messageId="b", text="Hello")) == TextDelta("lo")
    assert reply.take_event(event(None, "messageStateUpdated", messageId="b", state="complete")) is None
    assert reply.done


def test_another_message_of_the_bot_replaces() -> None:
    reply = _reply()
    reply.take_event(_added("thinking"))
    assert reply.take_event(_added("Hello", mid="b2", state="complete")) == TextReplaced("Hello")
    assert set(reply.message_ids()) == {"b", "b2", "h"}


def test_an_error_says_nothing_to_the_caller() -> None:
    reply = _reply()
    with pytest.raises(UpstreamFailure) as caught:
        reply.take_event(_added("You need more points", state="error_insufficient_fund"))
    assert isinstance(caught.value.outcome, Depleted) and reply.text == ""


@pytest.mark.parametrize(("told", "points"), [(17, 17), ("17", 17), (16.6, 17), (None, None), ("many", None)])
def test_the_price(told: Any, points: int | None) -> None:
    reply = _reply()
    reply.take_event(event(1, "jobCostUpdated", totalCostPoints=told))
    assert reply.points == points


def test_the_end_of_another_job_is_only_a_hint() -> None:
    reply = _reply()
    reply.take_event(event(1, "jobUpdated", jobId=1, state="complete"))
    assert reply.wants_reread
    for _ in range(5):
        reply.take(Update(message_id="b", author="bot", state="incomplete", text="Hel"), reread=True)
    assert not reply.wants_reread


def test_the_end_of_our_job_without_an_answer_is_a_cut() -> None:
    reply = _reply()
    reply.take_event(event(1, "jobStarted", jobId=2))
    reply.take_event(event(1, "jobUpdated", jobId=2, state="completed"))
    reply.take(Update(message_id="b", author="bot", state="incomplete", text="Hel"), reread=True)
    with pytest.raises(UpstreamFailure) as caught:
        reply.take(None, reread=True)
    assert caught.value.outcome == Transient("the answer was cut off")


# ---------------------------------------------------------------- form key

DEFINED = ["window.other=1;function x(){}", "window.ab=function(){return window.cd('')};window.cd=function(k){}"]


def test_calls_in_order_of_preference() -> None:
    seeded = 'window.go=function(){return 1&&window.cd("0123456789abcdef")}'
    assert formkey.calls([*DEFINED, seeded], []) == ['window.cd("0123456789abcdef")', "window.ab()"]
    assert formkey.calls(DEFINED, ['window.cd("0123456789abcdef")']) == ['window.cd("0123456789abcdef")', "window.ab()"]
    assert formkey.calls(DEFINED, ['window.gtag("a-long-event-name")']) == ["window.ab()"], "not defined by the scripts"
    assert formkey.calls(["function x(){}"], []) == []


@pytest.mark.parametrize("values", [[], ["short"], ["with space" * 9], ["ü" * 40]])
def test_what_is_no_key(values: list[str]) -> None:
    with pytest.raises(formkey.FormkeyNotFound):
        formkey.key_from(values)


def test_the_key_is_the_first_32_characters() -> None:
    assert formkey.key_from(["short", "k" * 32 + "tail"]) == "k" * 32


def _sandbox(**changes: Any) -> Sandbox:
    return Sandbox(**{"at_once": 2, "timeout": 10.0, "answer_bytes": 1 << 20, **changes})


async def _evaluated(*calls: str, scripts: tuple[str, ...] = (), sandbox: Sandbox | None = None) -> list[str]:
    prelude = formkey.prelude('Agent "9"', 'window.secret="s";')
    asked = {"prelude": prelude, "scripts": scripts, "calls": calls, "memory": 1 << 25, "seconds": 2}
    values: list[str] = (await (sandbox or _sandbox()).run(ENGINE, asked))["values"]
    return values


async def test_what_page_scripts_see() -> None:
    seen = await _evaluated(
        "typeof process+typeof QuickJS+typeof require+typeof std+typeof os+typeof print",
        "String(!!window.document)+window.navigator.userAgent+window.secret",
    )
    assert seen == ["undefined" * 6, 'trueAgent "9"s']


async def test_scripts_that_fail_do_not_spoil_the_others() -> None:
    scripts = ("window.a=function(){return 'A'}", "window.missing.thing()", "syntax error(", "window.b=()=>window.a()")
    assert await _evaluated("nothing()", "window.b()", "5", scripts=scripts) == ["A"]


@pytest.mark.parametrize(
    "script",
    [
        "while(true){}",
        "var a=[];while(true)a.push(new Array(1e5).fill(1))",
        "function f(){return f()+f()};f()",
        "throw {toString(){throw 1}}",
    ],
    ids=["endless", "greedy", "deep", "thrower"],
)
async def test_hostile_scripts_are_contained(script: str) -> None:
    with contextlib.suppress(SandboxFailed):
        assert await _evaluated("'alive'", scripts=(script,)) in (["alive"], [])


async def test_a_child_that_takes_too_long_is_killed() -> None:
    with pytest.raises(SandboxTimeout):
        await _evaluated("1", scripts=("while(true){}",), sandbox=_sandbox(timeout=0.3))


async def test_a_child_that_says_too_much_is_killed() -> None:
    with pytest.raises(SandboxFailed):
        await _sandbox(answer_bytes=50).run(PAGE, {"html": "<title>" + "x" * 300 + "</title>"})


async def test_children_have_no_environment_and_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    program = tmp_path / "look.py"
    program.write_text(
        "import json,os,sys\nsys.stdin.read()\n"
        "fds=[int(f) for f in os.listdir('/proc/self/fd')] if os.path.isdir('/proc/self/fd') else []\n"
        "print(json.dumps({'env':dict(os.environ),'fds':len(fds),'path':sys.flags.isolated}))"
    )
    with open(tmp_path / "open", "w"):
        seen = await _sandbox().run(program, {})
    assert "A_SECRET" not in seen["env"] and seen["path"] == 1
    if sys.platform == "linux":
        assert seen["fds"] <= 4, "stdin, stdout, stderr and the listing itself"


async def test_children_wait_for_their_turn() -> None:
    sandbox, running = _sandbox(at_once=1), []

    async def one(n: int) -> None:
        await _evaluated("1", sandbox=sandbox)
        running.append(n)

    await asyncio.gather(*(one(n) for n in range(3)))
    assert len(running) == 3


# ---------------------------------------------------------------- single flight


async def test_callers_share_one_piece_of_work() -> None:
    flight: SingleFlight[int] = SingleFlight()
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return calls

    assert await asyncio.gather(*(flight.join(work) for _ in range(5))) == [1] * 5
    assert await flight.join(work) == 2


async def test_a_caller_that_leaves_does_not_end_the_work() -> None:
    flight: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        await asyncio.sleep(0.05)
        return "done"

    first = asyncio.create_task(flight.join(work))
    second = asyncio.create_task(flight.join(work))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == "done"


def test_a_site_that_tells_no_prices_is_soon_not_waited_for() -> None:
    prices = PriceWatch(1.0)
    for _ in range(3):
        assert prices.patience == 1.0
        prices.note(told=False)
    waits = []
    for _ in range(40):
        waits.append(prices.patience)
        prices.note(told=False)
    assert waits.count(1.0) == 2, "now and then it gets another chance"
    prices.note(told=True)
    assert prices.patience == 1.0
