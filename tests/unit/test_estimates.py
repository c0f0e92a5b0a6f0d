"""What a request may use at most, by what is asked for."""

from __future__ import annotations

import pytest

from poe_gateway.chat.embeddings import embed_request
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids
from poe_gateway.dispatch.estimates import Estimate, Estimator
from poe_gateway.metering.learned import ASSUMED_OUTPUT, Learned
from poe_gateway.metering.pricelist import MemoryPriceRules, PriceList
from poe_gateway.pool.lease import Want
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.routing.catalog import Plan
from tests.unit.builders import StepClock


def estimated(request: ChatRequest) -> Estimate:
    """By somebody who knows nothing yet."""
    clock = StepClock()
    points = PriceBook(MemoryPrices(clock), MemoryUsage(), Ids(1))
    estimator = Estimator(PriceList(MemoryPriceRules(), clock), Learned(), points)
    plan = Plan.of("m", "m", {"mock": "m"})
    want = Want(offers=plan.offers, model="m", caller="key_1", evidence="req_1", deadline=0.0)
    return estimator.estimate("default", request, plan, want, 7, clock.now())


CHAT = ChatRequest(model="m", messages=(Message("user", (TextPart("hi"),)),))


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (CHAT, 7 + ASSUMED_OUTPUT),
        (ChatRequest(model="m", messages=CHAT.messages, parameters={"max_tokens": 5}), 12),
        (embed_request("m", ("hi",), {}), 7),
    ],
    ids=["an answer of unknown length", "an answer with a bound", "vectors, which have no tokens"],
)
def test_tokens_to_be_reserved(request_: ChatRequest, tokens: int) -> None:
    assert estimated(request_).tokens == tokens
