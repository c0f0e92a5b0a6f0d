"""What an upstream can do of a request: what is passed on, emulated, dropped because the caller allows it, or refused.

``fit`` decides, by capabilities alone. ``answered`` calls the upstream and applies the emulation to its events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from poe_gateway.chat.emulation import schemas
from poe_gateway.chat.emulation.parameters import LIMITS, STOP, changes_nothing, stop_sequences, token_limit
from poe_gateway.chat.emulation.plan import Emulation, Offer
from poe_gateway.chat.emulation.validation import SchemaError
from poe_gateway.chat.events import ChatEvent
from poe_gateway.chat.request import ChatRequest, OutputFormat, ToolChoice
from poe_gateway.dispatch.emulating import Emulated
from poe_gateway.errors import InvalidRequest
from poe_gateway.upstreams.base import AccountRef, Capabilities, Upstream


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How one upstream is asked. ``emulated``: of ``tools``, ``response_format``, ``stop``, ``max_tokens``.

    ``dropped``: parameters without effect, as the caller allows, in his words. ``parameters``: those that are passed
    on; None: all.
    """

    emulated: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    parameters: Mapping[str, Any] | None = None
    emulation: Emulation | None = None

    @property
    def loss(self) -> int:
        """How much of the request is not done by the upstream itself."""
        return len(self.emulated) + len(self.dropped)


NOTHING = Fit()
"""The upstream can do what is asked as it is asked."""

_FREE = ToolChoice()
_DOING = {"chat": "answer in words", "embed": "make embeddings", "image": "make images"}


def fit(request: ChatRequest, capabilities: Capabilities, *, drop: bool = False) -> Fit:
    """How an upstream that can do this is asked. ``drop``: parameters that it does not follow may be left out.

    Raises InvalidRequest: code ``unsupported_operation``, ``unsupported_content``, ``unsupported_parameter`` or
    ``invalid_schema``.
    """
    if request.operation not in capabilities.operations:
        raise InvalidRequest(
            f"The accounts that serve this model do not {_DOING[request.operation]}.",
            code="unsupported_operation",
            param="model",
        )
    if not capabilities.images and any(message.images for message in request.messages):
        raise InvalidRequest(
            "Images are not supported by the accounts that serve this model: send text only, or choose another model.",
            code="unsupported_content",
            param=request.spelling("messages"),
        )
    offer = None if capabilities.tools or request.operation != "chat" else _offer(request)
    output = None if capabilities.structured and _held(request, capabilities) else request.output
    if offer is None and output is None and (capabilities.parameters is None or not request.parameters):
        return NOTHING
    _check_schemas(offer, output, request.spelling("response_format"))
    sorted_out = _Parameters(request, capabilities.parameters, drop=drop)
    emulated = [name for name, wanted in (("tools", offer), ("response_format", output)) if wanted is not None]
    if sorted_out.stop:
        emulated.append("stop")
    if sorted_out.max_tokens is not None:
        emulated.append("max_tokens")
    emulation = Emulation(offer=offer, output=output, stop=sorted_out.stop, max_tokens=sorted_out.max_tokens)
    return Fit(
        emulated=tuple(emulated),
        dropped=tuple(dict.fromkeys(sorted_out.dropped)),
        parameters=sorted_out.passed,
        emulation=emulation if emulated else None,
    )


def _held(request: ChatRequest, capabilities: Capabilities) -> bool:
    """Whether the upstream holds an answer to this form, if it does to any."""
    return capabilities.json_mode or request.output is None or request.output.schema is not None


class _Parameters:
    """The parameters of one request, sorted out. Raises InvalidRequest."""

    def __init__(self, request: ChatRequest, followed: frozenset[str] | None, *, drop: bool) -> None:
        self.stop: tuple[str, ...] = ()
        self.max_tokens: int | None = None
        self.dropped: list[str] = []
        self.passed: dict[str, Any] | None = None
        if followed is None:
            return
        self.passed = {}
        in_words = request.operation == "chat"
        for name, value in request.parameters.items():
            if name in followed:
                self.passed[name] = value
            elif changes_nothing(name, value):
                continue
            elif name == STOP and in_words:
                self.stop = stop_sequences(value)
            elif name in LIMITS and in_words:
                self._limit(name, token_limit(name, value), followed)
            elif drop or name in request.defaults:
                self.dropped.append(request.spelling(name))
            else:
                spelled = request.spelling(name)
                raise InvalidRequest(
                    f"'{spelled}' is not supported by the accounts that serve this model: leave it out, or send the "
                    "header 'X-Gateway-Drop-Params: true' to have it ignored.",
                    code="unsupported_parameter",
                    param=spelled,
                )

    def _limit(self, name: str, limit: int, followed: frozenset[str]) -> None:
        assert self.passed is not None  # noqa: S101 - only asked for where some are followed
        for other in LIMITS:
            if other != name and other in followed:  # the other name of the same thing
                self.passed.setdefault(other, limit)
                return
        self.max_tokens = limit if self.max_tokens is None else min(limit, self.max_tokens)


def _offer(request: ChatRequest) -> Offer | None:
    """The tools to be emulated; None when there are none to be called, and earlier turns called none.

    Raises InvalidRequest.
    """
    choice = request.tool_choice or _FREE
    if request.tools and choice.mode != "none":
        parallel = request.parallel_tool_calls is not False
        offer = Offer(tools=request.tools, mode=choice.mode, name=choice.name, parallel=parallel)
        if not offer.callable:
            raise InvalidRequest("'tool_choice' names a tool that is not in 'tools'.", param="tool_choice")
        return offer
    if any(message.role == "tool" or message.tool_calls for message in request.messages):
        return Offer(mode="none")
    return None


def _check_schemas(offer: Offer | None, output: OutputFormat | None, spelled: str) -> None:
    """What the answer will be checked by must be fit for it; ``spelled``: its form. Raises InvalidRequest."""
    patterns: set[str] = set()
    try:
        for tool in offer.callable if offer is not None else ():
            where, param = f"The parameters of the tool '{tool.name}'", "tools"
            if tool.parameters is not None:
                schemas.check(tool.parameters, patterns)
        where, param = f"The schema of '{spelled}'", spelled
        if output is not None and output.schema is not None:
            schemas.check(output.schema, patterns)
    except SchemaError as error:
        raise InvalidRequest(f"{where} cannot be used: {error}.", code="invalid_schema", param=param) from None


def answered(
    fit: Fit,
    upstream: Upstream,
    ref: AccountRef,
    model: str,
    request: ChatRequest,
    bound: Mapping[str, Any] | None,
    *,
    salt: str = "",
    count: Callable[[str], int] | None = None,
) -> AsyncGenerator[ChatEvent, None]:
    """The upstream's events with the emulation applied. Raises UpstreamFailure, as ``Upstream.chat`` does.

    ``salt``: unlike for any other request, for the ids of calls (the id of the request). ``count``: the tokens of a
    text; None: they are estimated.
    """
    if fit.parameters is not None:
        request = replace(request, parameters=dict(fit.parameters))
    if fit.emulation is None:
        return upstream.chat(ref, model, request, bound)
    return Emulated(fit.emulation, upstream, ref, model, request, bound, salt=salt, count=count).events()
