"""What of a request is emulated. Values."""

from __future__ import annotations

from typing import Literal

import msgspec

from poe_gateway.chat.request import OutputFormat, Tool

Mode = Literal["auto", "none", "required"]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The tools that the model may call. ``name``: the only one that it must call (with mode ``required``).

    Mode ``none``: earlier turns called tools, now it must not.
    """

    tools: tuple[Tool, ...] = ()
    mode: Mode = "auto"
    name: str | None = None
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that may be called now."""
        if self.mode == "none":
            return ()
        return self.tools if self.name is None else tuple([tool for tool in self.tools if tool.name == self.name])


class Emulation(msgspec.Struct, frozen=True, kw_only=True):
    """None, or empty: the upstream does it by itself, or nobody asked for it. ``max_tokens``: of the answer."""

    offer: Offer | None = None
    output: OutputFormat | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None

    @property
    def by_prompt(self) -> bool:
        """Whether the model must be told, and its answer be read."""
        return self.offer is not None or self.output is not None
