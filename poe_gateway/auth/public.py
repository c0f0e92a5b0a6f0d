"""Callers without a key, where the routing file lets them in: one caller for each address, with names of the file only.

Sessions, repetitions and kept responses belong to a caller, so that those of two addresses never meet. Whoever shares
an address shares them: a public gateway is for names that anybody may ask, not for anybody's secrets.
"""

from __future__ import annotations

from collections import OrderedDict

from poe_gateway.auth.addresses import source_of
from poe_gateway.auth.keys import Principal
from poe_gateway.limits.terms import Rates, Scope

PUBLIC = "public:"
"""Beginning of the ids of such callers; their address follows."""
_REMEMBERED = 10_000


class PublicCallers:
    """Of one process. Closed until ``let_in``."""

    def __init__(self, defaults: Rates, everywhere: Scope | None) -> None:
        self._defaults = defaults
        self._everywhere = everywhere
        self._models: tuple[str, ...] | None = None
        self._known: OrderedDict[str, Principal] = OrderedDict()

    def let_in(self, models: tuple[str, ...] | None) -> None:
        """Names that such callers may ask for from now on; None: nobody is let in."""
        if models != self._models:
            self._models = models
            self._known.clear()

    def at(self, address: str | None) -> Principal | None:
        """The caller at an address, or None."""
        if self._models is None:
            return None
        source = source_of(address)
        known = self._known.get(source)
        if known is None:
            key_id = f"{PUBLIC}{source}"
            scopes = (Scope(kind="key", id=key_id, rates=self._defaults, budgets=()), self._everywhere)
            known = self._known[source] = Principal(
                key_id=key_id,
                name="public",
                models=self._models,
                scopes=tuple([scope for scope in scopes if scope is not None and not scope.idle]),
            )
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(source)
        return known


def is_public(key_id: str) -> bool:
    """Whether a caller came without a key."""
    return key_id.startswith(PUBLIC)
