"""By which name a bot is sent to, and what the site's refusals of it are taken for; against a scripted site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from poe_gateway.pool.outcome import AdapterDrift, Failure, Rejected, Transient, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import PoeWeb, naming
from poe_gateway.upstreams.poe_web.outcomes import Refusal
from poe_gateway.upstreams.poe_web.protocol import load_protocol
from poe_gateway.upstreams.poe_web.site import Site
from tests.poe_web.kit import ask, ref

PROTOCOL = load_protocol()
SERVER_ERROR = AdapterDrift("the site answers: Server Error")
Answers = Mapping[str, Any]


@pytest.mark.parametrize(
    ("asked", "model", "handle"),
    [
        ("GPT-4o-Mini", "gpt4_o_mini", "GPT-4o-Mini"),
        ("gpt-4o-mini", "gpt4_o_mini", "gpt-4o-mini"),
        ("Some-Bot", "some-bot", "Some-Bot"),
        ("alias", "Some Bot", "Some Bot"),
        ("alias", "gpt4_o_mini", "GPT-4o-Mini"),
        ("alias", "some-bot", "some-bot"),
    ],
)
def test_the_handle_behind_a_name(asked: str, model: str, handle: str) -> None:
    assert naming.handle_of(asked, model, PROTOCOL) == handle


@pytest.mark.parametrize(
    ("outcome", "fate", "doubtful", "again"),
    [
        (SERVER_ERROR, Fate.NOT_SENT, True, True),
        (SERVER_ERROR, Fate.UNKNOWN, True, False),
        (Rejected(code="no_access", status=403), Fate.NOT_SENT, True, False),
        (Rejected(code="context_length_exceeded"), Fate.NOT_SENT, False, False),
        (Transient("the site answers 503"), Fate.NOT_SENT, False, False),
        (Unauthorized(), Fate.NOT_SENT, False, False),
    ],
)
def test_which_refusals_may_be_about_the_name(outcome: Failure, fate: Fate, doubtful: bool, again: bool) -> None:
    failure = Refusal(outcome, fate)
    assert naming.may_be_the_name(failure) is doubtful
    assert (doubtful and naming.may_try_again(failure)) is again
    assert not naming.may_be_the_name(UpstreamFailure(outcome, fate)), "not an answer to the message"


class Scripted:
    """Stands in for the site's answers to sends and look-ups of bots; everything else stays real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, names: set[str], refusal: Any, bot: Any) -> None:
        self.sent: list[str] = []
        self.looked_up: list[str] = []
        real = Site.call

        async def call(site: Site, operation: str, variables: Answers, **more: Any) -> dict[str, Any]:
            if operation == "bot":
                self.looked_up.append(variables["botHandle"])
                if isinstance(bot, Failure):
                    raise UpstreamFailure(bot)
                return orjson.loads(orjson.dumps(bot))  # type: ignore[no-any-return]
            if operation == "send":
                self.sent.append(variables["bot"])
                if variables["bot"] not in names:
                    if isinstance(refusal, UpstreamFailure):
                        raise refusal
                    return {"messageEdgeCreate": refusal}
                # The emulated site has its own idea of names; which one was taken is known by now.
                variables = {**variables, "bot": "gpt4_o_mini"}
            return await real(site, operation, variables, **more)

        monkeypatch.setattr(Site, "call", call)


KNOWN = {"bot": {"handle": "GPT-4o-Mini"}, "viewer": {"id": "v"}}
NO_BOT = {"bot": None, "viewer": {"id": "v"}}
DRIFT = Refusal(SERVER_ERROR, Fate.NOT_SENT)
REFUSED = {"status": "bot_not_found", "statusMessage": "?", "message": None, "chat": None}


@pytest.mark.parametrize("refusal", [DRIFT, REFUSED], ids=["server-error", "status"])
async def test_the_handle_is_tried_once_after_the_mapped_name(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch, refusal: Any
) -> None:
    site = Scripted(monkeypatch, names={"GPT-4o-Mini"}, refusal=refusal, bot=KNOWN)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    assert said.finished and site.sent == ["gpt4_o_mini", "GPT-4o-Mini"]
    assert said.bound is not None and said.bound["bot"] == "GPT-4o-Mini"


@pytest.mark.parametrize("refusal", [DRIFT, REFUSED, None], ids=["server-error", "status", "no-edge"])
async def test_a_bot_that_the_site_does_not_know(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch, refusal: Any
) -> None:
    site = Scripted(monkeypatch, names=set(), refusal=refusal, bot=NO_BOT)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    assert isinstance(said.outcome, Rejected) and said.fate is Fate.NOT_SENT
    assert (said.outcome.status, said.outcome.code, said.outcome.model) == (404, "model_not_found", None)
    assert len(site.looked_up) == 1 and len(site.sent) <= 2


@pytest.mark.parametrize("bot", [KNOWN, SERVER_ERROR, {"viewer": {"id": "v"}}], ids=["known", "drift", "odd"])
async def test_a_refusal_that_the_look_up_does_not_explain_stays_drift(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch, bot: Any
) -> None:
    site = Scripted(monkeypatch, names=set(), refusal=DRIFT, bot=bot)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    assert said.outcome == SERVER_ERROR and len(site.sent) == 2


async def test_a_dead_session_is_not_an_unknown_model(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, names=set(), refusal=DRIFT, bot={"bot": None, "viewer": None})
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    assert isinstance(said.outcome, Unauthorized)


async def test_a_message_of_unknown_fate_is_not_sent_under_another_name(
    poe: PoeWeb, emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Scripted(monkeypatch, names=set(), refusal=Refusal(SERVER_ERROR, Fate.UNKNOWN), bot=KNOWN)
    said = await ask(poe, ref(emulator.accounts[0]), "hello")
    assert said.fate is Fate.UNKNOWN and site.sent == ["gpt4_o_mini"]
