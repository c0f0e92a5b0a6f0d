"""Lists of models grow old after as long as the operator says, and the old ones serve until then."""

from __future__ import annotations

from poe_gateway.scheduler import duties
from poe_gateway.scheduler.duties import Turn
from tests.accounts.support import House


async def test_a_list_is_read_again_when_it_is_too_old() -> None:
    house = House()
    await house.add("one")
    read_at = house.catalog.fetched_at("mock")

    async def turn(seconds: float) -> str:
        house.clock.pass_(seconds=seconds)
        return await duties.refresh_catalogues(Turn(now=house.clock.now()), care=house.care, age=60.0)

    assert await turn(59) == "" and house.catalog.fetched_at("mock") == read_at
    assert await turn(2) == "1 catalogues read, 0 failed" and house.catalog.fetched_at("mock") != read_at
