"""Settings: environment and ``.env.gateway`` in, frozen options out, one group per room.

Every variable is one row of ``variables.VARIABLES``; the table in the README and ``.env.gateway.example`` are made from
the same rows. All problems are collected and told in one ``SettingsError``, which names variables and never shows
the value of a secret. Nothing below this floor reads the environment.
"""

from __future__ import annotations

from poe_gateway.settings.loading import SettingsError, environment, load_settings
from poe_gateway.settings.options import (
    AuditOptions,
    AuthOptions,
    ExplainOptions,
    IdempotencyOptions,
    LimitOptions,
    LogOptions,
    MoneyOptions,
    MongoOptions,
    PoeOptions,
    PoolOptions,
    ScheduleOptions,
    ServeOptions,
    SessionOptions,
    Settings,
    VaultOptions,
)
from poe_gateway.settings.variables import VARIABLES, Variable

__all__ = [
    "VARIABLES",
    "AuditOptions",
    "AuthOptions",
    "ExplainOptions",
    "IdempotencyOptions",
    "LimitOptions",
    "LogOptions",
    "MoneyOptions",
    "MongoOptions",
    "PoeOptions",
    "PoolOptions",
    "ScheduleOptions",
    "ServeOptions",
    "SessionOptions",
    "Settings",
    "SettingsError",
    "Variable",
    "VaultOptions",
    "environment",
    "load_settings",
]
