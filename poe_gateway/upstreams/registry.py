"""The only file that names concrete upstreams."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from poe_gateway.clock import Clock, Ids
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.upstreams.anthropic_api import AnthropicAPI
from poe_gateway.upstreams.base import Upstream
from poe_gateway.upstreams.mock import MockUpstream
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.poe_web import PoeWeb
from poe_gateway.upstreams.poe_web.remote_images import fetching


def build_upstreams(
    *,
    session: aiohttp.ClientSession,
    clock: Clock,
    ids: Ids,
    poe_base_url: str = "https://poe.com",
    poe_ws_base_url: str | None = None,
    poe_revision: str | None = None,
    poe_auto_fetch_revision: bool = True,
    preset_urls: Mapping[str, str] | None = None,
    images: ImageFetcher | None = None,
) -> Mapping[str, Upstream]:
    """All adapters by name: ``mock``, ``openai_api``, ``anthropic_api``, ``poe_web``.

    ``session`` has no cookie jar and stays the caller's.
    ``images`` fetches pictures for upstreams that take files only; None: addresses are refused there.
    ``preset_urls`` sends presets of ``openai_api`` elsewhere (rehearsals, tests): name -> base address.
    """
    adapters: list[Upstream] = [
        MockUpstream(ids=ids),
        OpenAIAPI(session=session, clock=clock, preset_urls=preset_urls, images=images),
        AnthropicAPI(session=session, clock=clock, images=images),
        PoeWeb(
            session=session,
            clock=clock,
            ids=ids,
            base_url=poe_base_url,
            ws_base_url=poe_ws_base_url,
            default_revision=poe_revision,
            auto_fetch_revision=poe_auto_fetch_revision,
            fetch_image=None if images is None else fetching(images),
        ),
    ]
    return {adapter.name: adapter for adapter in adapters}
