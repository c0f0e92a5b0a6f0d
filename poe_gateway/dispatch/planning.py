"""Where a request may go, before anything is taken: its model's offers, its key's bounds, what each upstream can do."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from poe_gateway.auth.keys import Principal, allowed, may_use
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.dispatch.fitting import Fit, fit
from poe_gateway.errors import Forbidden, InvalidRequest, ModelNotFound, UpstreamFailed
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Want
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.selector import EVERY, Selector
from poe_gateway.routing.catalog import Catalog, Plan
from poe_gateway.routing.course import Leg
from poe_gateway.upstreams.base import Upstream

_SELECTORS = 1024
_KNOWN = 5.0
"""Seconds."""


class Way(msgspec.Struct, frozen=True):
    """An adapter, and how it is asked."""

    upstream: Upstream
    fit: Fit


class Planner:
    """Plans requests over the accounts of this process. ``prices`` None: nothing is known of points."""

    def __init__(
        self,
        *,
        broker: Broker,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        clock: Clock,
        prices: PriceBook | None = None,
    ) -> None:
        self._broker = broker
        self._catalog = catalog
        self._upstreams = upstreams
        self._clock = clock
        self._prices = prices
        self._selectors: dict[tuple[tuple[str, ...], ...], Selector] = {}
        self._met: dict[tuple[frozenset[str], Selector], tuple[float, bool]] = {}
        """Offers and selector -> until when it is known, and whether they have an account in common."""

    def plan(
        self, principal: Principal, request: ChatRequest, leg: Leg, *, granted: bool = False
    ) -> tuple[Plan, dict[str, Way]]:
        """The offers that the request may be answered by, and the way to each provider of theirs.

        ``granted``: the model was allowed by the name that the caller asked for. Raises ModelNotFound, Forbidden,
        InvalidRequest when no upstream can do what is asked, UpstreamFailed when there is no adapter.
        """
        plan = self.offered(principal, leg, granted=granted)
        return self._fitting(plan, request, self.selector(principal, leg.labels))

    def offered(self, principal: Principal, leg: Leg, *, granted: bool = False) -> Plan:
        """All offers of the leg's model. Raises ModelNotFound, Forbidden."""
        plan = self._catalog.plan(leg.model, self._broker.offers(), leg.offers)
        if not (granted or _may_use(principal, leg, plan.model)):
            allowed(principal, plan.model)
        return plan

    def may(self, principal: Principal, leg: Leg, *, granted: bool = False) -> bool:
        """Whether the key may use the leg's model and any of its accounts. What nobody serves the walk will tell of."""
        try:
            plan = self.offered(principal, leg, granted=granted)
        except ModelNotFound:
            return True
        except Forbidden:
            return False
        if not (principal.providers or principal.labels or principal.without):
            return True
        return self._meets(plan.offers, self.selector(principal, leg.labels))

    def want(
        self,
        principal: Principal,
        plan: Plan,
        *,
        tokens: int,
        request_id: str = "",
        fingerprint: str = "",
        deadline: float = 0.0,
        labels: tuple[str, ...] = (),
    ) -> Want:
        """What a request of this caller asks of the pool. ``labels``: only accounts that carry these as well."""
        offers, prices = plan.offers, self._prices
        return Want(
            offers=offers,
            model=plan.model,
            key=plan.key,
            caller=principal.key_id,
            evidence=request_id,
            deadline=deadline,
            selector=self.selector(principal, labels),
            need=0 if prices is None else prices.at_most(offers, plan.key, tokens),
            expected=0 if prices is None else prices.expected(offers, plan.key, tokens),
            priority=principal.priority,
            weight=principal.weight,
            fingerprint=fingerprint,
        )

    def selector(self, principal: Principal, labels: tuple[str, ...] = ()) -> Selector:
        """The accounts that the key may use, of those that carry ``labels``."""
        key = (principal.providers, (*principal.labels, *labels), principal.without)
        if key == ((), (), ()):
            return EVERY
        selector = self._selectors.get(key)
        if selector is None:
            if len(self._selectors) >= _SELECTORS:
                self._selectors.clear()
            selector = Selector(providers=key[0], labels=key[1], without=key[2])
            self._selectors[key] = selector
        return selector

    def _fitting(self, plan: Plan, request: ChatRequest, selector: Selector) -> tuple[Plan, dict[str, Way]]:
        """The offers that can do what is asked, at best without emulation.

        ``selector``: a provider of which it has no account does not keep others from emulating.
        """
        ways: dict[str, Way] = {}
        refusal: InvalidRequest | None = None
        for provider in plan.providers:
            upstream = self._upstreams.get(provider)
            if upstream is None:  # an account of an adapter that this version does not have
                continue
            try:
                ways[provider] = Way(upstream, fit(request, upstream.capabilities, drop=request.lenient))
            except InvalidRequest as error:
                refusal = error
        if not ways:
            raise refusal or UpstreamFailed("Nothing here speaks to the accounts of this model.", code="no_adapter")
        if len(ways) > 1 and selector is not EVERY:
            ways = {name: way for name, way in ways.items() if self._meets(plan.providers[name], selector)} or ways
        if len(ways) > 1:
            least = min(way.fit.loss for way in ways.values())
            ways = {name: way for name, way in ways.items() if way.fit.loss == least}
        return plan.among(ways), ways

    def _meets(self, offers: frozenset[str], selector: Selector) -> bool:
        """Whether any account of these offers is the selector's, in service or not."""
        now = self._clock.monotonic()
        known = self._met.get((offers, selector))
        if known is None or known[0] <= now:
            if len(self._met) >= _SELECTORS:
                self._met.clear()
            meets = any(selector.matches(seat.account) for seat in self._broker.seats_in(offers))
            known = self._met[offers, selector] = now + _KNOWN, meets
        return known[1]


def _may_use(principal: Principal, leg: Leg, model: str) -> bool:
    """By the model's public name, the same with its provider before it, or the tier's name."""
    names = [model, *([leg.prefix + model] if leg.prefix else []), *([leg.tier] if leg.tier else [])]
    return any(may_use(principal, name) for name in names)
