"""The catalogue: which offers may be asked for which model."""

from __future__ import annotations

import pytest

from poe_gateway.errors import ModelNotFound
from poe_gateway.routing.catalog import Catalog, Listing, Model
from tests.unit.builders import NOON

ONE = "openai_api:one.example"
PICKED = "openai_api:one.example+1f3a"
TWO = "openai_api:two.example"
UNREAD = "openai_api:new.example"
OFFERS = {ONE: 1, PICKED: 1, TWO: 1, UNREAD: 1}


def catalog() -> Catalog:
    """One model at three offers; the list of the fourth was never read."""
    listed = Model(id="listed", upstream="listed", owned_by="x")
    made = Catalog()
    made.replace([Listing(offer=name, models=(listed,), fetched_at=NOON) for name in (ONE, PICKED, TWO)])
    return made


def test_who_names_a_provider_may_ask_for_models_that_its_list_does_not_have() -> None:
    assert catalog().plan("fine-tuned", OFFERS, (ONE,)).targets == {ONE: "fine-tuned"}
    assert set(catalog().plan("listed", OFFERS, (ONE,)).targets) == {ONE, PICKED}


def test_a_choice_of_models_by_the_accounts_owner_stands() -> None:
    with pytest.raises(ModelNotFound):
        catalog().plan("fine-tuned", {PICKED: 1, TWO: 1}, (ONE,))


def test_without_a_provider_an_unlisted_model_goes_where_no_list_was_read() -> None:
    assert catalog().plan("fine-tuned", OFFERS).targets == {UNREAD: "fine-tuned"}
    with pytest.raises(ModelNotFound):
        catalog().plan("fine-tuned", {ONE: 1, PICKED: 1, TWO: 1})
