"""Fixtures of the tests of adapters."""

from collections.abc import AsyncIterator

import pytest

from tests.upstreams.provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """An OpenAI-compatible provider that listens."""
    server = Provider()
    await server.start()
    yield server
    await server.stop()
