"""What goes wrong on a simulated day, and the operator who puts things right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from poe_gateway.clock import Ids
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.outcome import Challenged, Failure, RateLimited, Transient, Unauthorized
from poe_gateway.simulation.gateway import Gateway
from poe_gateway.simulation.plan import Arrival, Trouble
from poe_gateway.simulation.site import SiteAccount
from poe_gateway.simulation.wiring import Surroundings
from poe_gateway.upstreams.base import Fate, UpstreamFailure

_LOOK = 1800.0
"""Seconds between two looks of the operator."""
_POISONS: tuple[Failure, ...] = (
    Challenged("bot check"),
    Unauthorized("forbidden"),
    Transient("server error"),
    RateLimited(),
)
_REPEATS = 8
_REPEATED = 1_000_000_000
"""Numbers of repeated requests begin here."""


class Troubles:
    """Carries out the planned troubles. ``born`` makes a new process for a row of the plan; ``ask`` sends a request."""

    def __init__(
        self,
        around: Surroundings,
        ids: Ids,
        *,
        rows: dict[int, Gateway],
        born: Callable[[int], None],
        ask: Callable[[Arrival], None],
        coming: Callable[[], Arrival | None],
    ) -> None:
        self._around = around
        self._rng = ids.rng
        self._rows = rows
        self._born = born
        self._ask = ask
        self._coming = coming
        self._thaws: dict[int, float] = {}
        """Row -> when its process goes on."""
        self._windows: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._repeated = 0
        self.over = False
        for trouble in around.plan.troubles:
            around.world.call_at(trouble.at, self._strike, trouble)
        around.world.call_at(_LOOK, self._look)

    def _strike(self, trouble: Trouble) -> None:
        if not self.over and getattr(self, f"_{trouble.kind}")(trouble) is not False:
            self.happened[trouble.kind] += 1
            self._around.judge.tell("fate", f"{trouble.kind} {trouble.target} for {trouble.seconds:.0f} s")

    def end(self) -> None:
        """No more troubles; what was frozen goes on, what is broken is mended."""
        self.over = True
        around = self._around
        around.hub.away = around.line.away = around.prices.away = around.usage.away = False
        around.site.faults = type(around.site.faults)()
        for row in list(self._thaws):
            self._thaw(row)

    # Processes.

    def _spared(self, row: int) -> bool:
        """Whether a blow to this process would leave a frozen one on its machine without a witness.

        Nobody could tell then that it is frozen and not dead; that much the house does not promise.
        """
        place = self._rows[row].place
        others = [
            each for key, each in self._rows.items() if key != row and each.place == place and key not in self._thaws
        ]
        frozen = [key for key in self._thaws if key != row and self._rows[key].place == place]
        alone = len({each.place for each in self._rows.values()}) == 1
        return not alone and not others and bool(frozen)

    def _kill(self, trouble: Trouble) -> bool:
        row = trouble.target
        if not self._rows[row].lives or self._spared(row):
            return False
        self._thaws.pop(row, None)
        self._rows[row].kill()
        self._around.world.call_at(self._around.world.now + trouble.seconds, self._born, row)
        return True

    def _freeze(self, trouble: Trouble) -> bool:
        row, world = trouble.target, self._around.world
        gateway = self._rows[row]
        lonely = len({each.place for each in self._rows.values()}) > 1 and not any(
            each.lives and each.place == gateway.place and key != row and key not in self._thaws
            for key, each in self._rows.items()
        )
        if not gateway.awake or row in self._thaws or lonely or self._spared(row):
            return False
        gateway.freeze()
        until = self._thaws[row] = world.now + trouble.seconds
        world.call_at(until, self._thaw_at, row, until)
        return True

    def _thaw_at(self, row: int, until: float) -> None:
        if self._thaws.get(row) == until:
            self._thaw(row)

    def _thaw(self, row: int) -> None:
        del self._thaws[row]
        self._around.judge.tell("fate", f"{self._rows[row].name} goes on")
        self._rows[row].thaw()

    def _skew(self, trouble: Trouble) -> None:
        """Somebody sets the machine's calendar."""
        self._rows[trouble.target].machine.skew = self._rng.uniform(-3600, 3600)

    def _database_away(self, trouble: Trouble) -> None:
        around = self._around
        self._window(trouble, lambda on: self._away(on=on))
        around.judge.tell("fate", "the database is away")

    def _away(self, *, on: bool) -> None:
        around = self._around
        around.hub.away = around.line.away = around.prices.away = around.usage.away = on

    # The provider.

    def _window(self, trouble: Trouble, switch: Callable[[bool], None]) -> None:
        """On until the last of several windows of a kind is over."""
        key = f"{trouble.kind} {trouble.target}" if trouble.kind == "egress" else trouble.kind

        def end() -> None:
            self._windows[key] -= 1
            if not self._windows[key] and not self.over:
                switch(False)

        self._windows[key] += 1
        switch(True)
        self._around.world.call_at(self._around.world.now + trouble.seconds, end)

    def _egress(self, trouble: Trouble) -> None:
        places = self._around.site.faults.cut_off
        place = trouble.target % self._around.plan.places
        self._window(
            Trouble(at=trouble.at, kind="egress", seconds=trouble.seconds, target=place),
            lambda on: places.add(place) if on else places.discard(place),
        )

    def _fault(self, trouble: Trouble) -> None:
        self._window(trouble, lambda on: setattr(self._around.site.faults, trouble.kind, on))

    _drift = _server_errors = _time_outs = _limits = _fault

    def _challenge(self, trouble: Trouble) -> None:
        self._site_account(trouble).challenged = True

    def _dead(self, trouble: Trouble) -> None:
        self._site_account(trouble).dead = True

    def _site_account(self, trouble: Trouble) -> SiteAccount:
        return list(self._around.site.accounts.values())[trouble.target]

    def _poison(self, trouble: Trouble) -> bool:
        """A body that all accounts refuse, and a caller who does not give up."""
        arrival = self._coming()
        if arrival is None:
            return False
        world = self._around.world
        self._around.site.faults.poison[arrival.body] = UpstreamFailure(self._rng.choice(_POISONS), Fate.NOT_SENT)
        at = arrival.at
        for _ in range(_REPEATS):
            at += self._rng.uniform(0.5, 60.0)
            self._repeated += 1
            world.call_at(at, self._ask, replace(arrival, number=_REPEATED + self._repeated, session=None))
        return True

    # The operator.

    def _pause(self, trouble: Trouble) -> bool:
        account_id = self._site_account(trouble).id
        if not self._by_operator(account_id, transitions.paused):
            return False
        world = self._around.world
        world.call_at(world.now + trouble.seconds, self._by_operator, account_id, transitions.resumed)
        return True

    def _by_operator(self, account_id: str, step: Callable[[Account], Account]) -> bool:
        """Through the admin API of some process."""
        gateway = next((each for each in self._rows.values() if each.awake), None)
        if gateway is None:
            return False
        gateway.broker.step(account_id, step)
        return True

    def _look(self) -> None:
        """Solve challenges by hand and hand in new credentials, not all at once."""
        if self.over:
            return
        around = self._around
        for account in around.site.accounts.values():
            if (account.challenged or account.dead) and self._rng.random() < 0.3:
                self.mend(account.id)
        around.world.call_at(around.world.now + _LOOK, self._look)

    def mend(self, account_id: str) -> None:
        """The account is as good as new at the provider, and the operator vouches for it here."""
        around, account = self._around, self._around.site.accounts[account_id]
        stored, now = around.hub.accounts[account_id], around.hub.clock.now()
        around.judge.tell("oper", f"mends {account_id}")
        if account.dead:
            account.dead = False
            fresh = transitions.renewed_credentials(stored, now)
            around.book.sealed[account_id, fresh.credential_rev] = around.vault.seal({"token": account_id})
            around.hub.put(fresh)
            account.challenged = False
            return
        account.challenged = False
        policy = around.plan.policy
        self._by_operator(account_id, lambda each: transitions.cleared(each, now, policy))
