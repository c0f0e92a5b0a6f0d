"""Price rules in memory: the twin of MongoDB's store, for tests and rehearsals."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from poe_gateway.metering.pricing import PriceRule


class MemoryPriceRules:
    """PriceRuleStore of one process; share ``table`` and ``log`` between processes.

    While ``failure`` is set, every call raises it.
    """

    def __init__(
        self, table: dict[tuple[str, int], PriceRule] | None = None, log: list[tuple[str, int]] | None = None
    ) -> None:
        self.table: dict[tuple[str, int], PriceRule] = {} if table is None else table
        self.log: list[tuple[str, int]] = [] if log is None else log
        self.failure: Exception | None = None
        self._read = 0

    def _call(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _set(self, rule: PriceRule) -> None:
        self.table[rule.id, rule.version] = rule
        self.log.append((rule.id, rule.version))

    async def load(self) -> list[PriceRule]:
        self._call()
        self._read = len(self.log)
        return list(self.table.values())

    async def changes(self) -> list[PriceRule]:
        self._call()
        changed = dict.fromkeys(self.log[self._read :])
        self._read = len(self.log)
        return [self.table[key] for key in changed]

    async def put(self, rule: PriceRule, retires: PriceRule | None) -> bool:
        self._call()
        if (rule.id, rule.version) in self.table:
            return False
        if retires is not None:
            self._set(retires)
        self._set(rule)
        return True

    async def retire(self, rule: PriceRule, at: datetime) -> None:
        self._call()
        self._set(replace(rule, retired_at=at))
