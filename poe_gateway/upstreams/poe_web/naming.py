"""Which name a bot goes by, and what a refused message says about it.

The send mutation takes codenames for old bots and handles for new ones; which bot is which is known from a
table that ages. So the mapped name is tried first and the handle itself once, when the refusal is sure.

What the site answers for a bot that does not exist is not known. "Server Error" also stands for outdated hashes
and for trouble on the site, and must not be told to the caller as a wrong model. Therefore the site is asked: a
look-up of the handle that names no bot, in an answer that is otherwise well-formed, settles that the model is
unknown. Whatever else the look-up says leaves the first refusal as it was.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from poe_gateway.pool.outcome import AdapterDrift, Challenged, Rejected, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web.outcomes import Refusal
from poe_gateway.upstreams.poe_web.protocol import ProtocolData
from poe_gateway.upstreams.poe_web.site import Site


class Lookup(Enum):
    """What the site says about a handle, when it does not tell the bot's own spelling."""

    UNKNOWN = "unknown"
    """There is no such bot."""
    UNTOLD = "untold"


def handle_of(asked: str, model: str, protocol: ProtocolData) -> str:
    """The handle behind the name ``model`` is sent by. ``asked``: the model in the caller's own words."""
    name = protocol.codename(model)
    for candidate in (asked, model):
        if protocol.codename(candidate) == name and candidate.strip() != name:
            return candidate.strip()
    return next((handle for handle, code in protocol.codenames.items() if code == name), model.strip())


def may_be_the_name(failure: UpstreamFailure) -> bool:
    """Whether a failed send may be due to the bot's name: an answer nobody knows, or no access to the bot."""
    if not isinstance(failure, Refusal):
        return False
    return isinstance(failure.outcome, AdapterDrift) or (
        isinstance(failure.outcome, Rejected) and failure.outcome.code == "no_access"
    )


def may_try_again(failure: UpstreamFailure) -> bool:
    """Whether the same message may go out under another name: the site has surely not taken it."""
    return failure.fate is Fate.NOT_SENT and isinstance(failure.outcome, AdapterDrift)


async def look_up(site: Site, handle: str) -> str | Lookup:
    """The bot's handle as the site spells it. Raises UpstreamFailure for challenges and dead sessions only."""
    try:
        data = await site.call("bot", {"botHandle": handle})
    except UpstreamFailure as failure:
        if isinstance(failure.outcome, Challenged | Unauthorized):
            raise
        return Lookup.UNTOLD
    if data.get("viewer", ...) is None:
        # A dead session is shown no bots either.
        raise UpstreamFailure(Unauthorized("the site knows no viewer"))
    bot: Any = data.get("bot", ...)
    if bot is None:
        return Lookup.UNKNOWN
    found = bot.get("handle") if isinstance(bot, dict) else None
    return found if isinstance(found, str) and found else Lookup.UNTOLD


def no_such_model(model: str) -> Rejected:
    """The site knows no such bot."""
    return Rejected(public=f"The model '{model[:80]}' does not exist.", status=404, code="model_not_found")
