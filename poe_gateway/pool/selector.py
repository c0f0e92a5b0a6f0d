"""Which accounts a service key may use: by provider and by label. Pure."""

from __future__ import annotations

import msgspec

from poe_gateway.pool.account import Account


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """A set of accounts. Empty fields set no bound."""

    providers: tuple[str, ...] = ()
    """The account's provider is one of these."""
    labels: tuple[str, ...] = ()
    """The account carries all of these."""
    without: tuple[str, ...] = ()
    """The account carries none of these."""

    def matches(self, account: Account) -> bool:
        """Whether the account belongs to the set."""
        if self.providers and account.provider not in self.providers:
            return False
        if self.labels and not all(label in account.labels for label in self.labels):
            return False
        return not (self.without and any(label in account.labels for label in self.without))


EVERY = Selector()
"""All accounts."""
