"""One emulated site with one account, and an adapter in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_emulator import PoeEmulator
from tests.poe_web.kit import adapter


@pytest.fixture
async def emulator() -> AsyncIterator[Any]:
    async with PoeEmulator(accounts=1) as running:
        yield running


@pytest.fixture
async def poe(emulator: Any) -> AsyncIterator[PoeWeb]:
    async with adapter(emulator) as running:
        yield running
