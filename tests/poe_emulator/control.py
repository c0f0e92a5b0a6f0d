"""Test control over HTTP, under ``/_control``; JSON in and out. For tests in another process.

======  ======================================  ==================================================
GET     /_control/stats                         all counters, all accounts, all rejections
POST    /_control/reset                         forget the counters (accounts and chats stay)
POST    /_control/site                          set `SiteOptions` fields
POST    /_control/formkey                       rotate every formkey
POST    /_control/revision                      a new build id
GET     /_control/accounts                      list of accounts with their cookies
POST    /_control/accounts                      a new account: {"email"?, fields of `Account`}
GET     /_control/accounts/{email}              one account
PATCH   /_control/accounts/{email}              set fields: balance, alive, concurrency ...
POST    /_control/accounts/{email}/script       {"behaviour": {...}, "times": 1 | null}
POST    /_control/accounts/{email}/fault        {"kind": ..., "where": "", "times": 1 | null}
POST    /_control/accounts/{email}/do           {"action": one of `ACTIONS`}
======  ======================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from aiohttp import web

from .accounts import Account, AccountStats
from .behaviour import Behaviour
from .site import Site, SiteOptions, SiteStats

SETTABLE = frozenset(
    {
        "p_b",
        "p_lat",
        "cf_clearance",
        "user_agent",
        "formkey",
        "alive",
        "require_p_lat",
        "balance",
        "addon",
        "allotment",
        "next_grant_at",
        "points_spelling",
        "plan",
        "cancelled_cost",
        "concurrency",
        "rate_limit",
        "challenge_kind",
        "follows",
    }
)


def _grant_now(account: Account) -> None:
    account.next_grant_at = 0.0
    account.balance = account.allotment
    account.next_grant_at = Account(email="").next_grant_at


def _clear_script(account: Account) -> None:
    account.standing = Behaviour()
    account.scripted.clear()
    account.faults.clear()


def _forget_pushes(account: Account) -> None:
    for channel in account.channels.values():
        channel.forget()


ACTIONS: dict[str, Callable[[Account], None]] = {
    "drop_sockets": Account.drop_sockets,
    "silence_sockets": Account.silence_sockets,
    "refetch_channels": Account.refetch_channels,
    "forget_pushes": _forget_pushes,
    "clear_challenge": Account.clear_challenge,
    "clear_script": _clear_script,
    "grant": _grant_now,
}


class Control:
    """The handlers of the table above."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def routes(self) -> list[web.RouteDef]:
        one = "/_control/accounts/{email}"
        return [
            web.get("/_control/stats", self._guard(self.stats)),
            web.post("/_control/reset", self._guard(self.reset)),
            web.post("/_control/site", self._guard(self.set_site)),
            web.post("/_control/formkey", self._guard(self.formkey)),
            web.post("/_control/revision", self._guard(self.revision)),
            web.get("/_control/accounts", self._guard(self.list_accounts)),
            web.post("/_control/accounts", self._guard(self.add_account)),
            web.get(one, self._guard(self.show_account)),
            web.patch(one, self._guard(self.set_account)),
            web.post(f"{one}/script", self._guard(self.script)),
            web.post(f"{one}/fault", self._guard(self.fault)),
            web.post(f"{one}/do", self._guard(self.act)),
        ]

    def _guard(
        self, verb: Callable[[web.Request, dict[str, Any]], Any]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Read the body, answer with the verb's value; mistakes become 400 or 404 with their text."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = await request.json() if request.can_read_body else {}
                return web.json_response(verb(request, body))
            except KeyError as missing:
                return web.json_response({"error": f"not found: {missing}"}, status=404)
            except (TypeError, ValueError) as wrong:
                return web.json_response({"error": str(wrong)}, status=400)

        return handle

    def _account(self, request: web.Request) -> Account:
        return self.site.account(request.match_info["email"])

    def stats(self, request: web.Request, body: dict[str, Any]) -> Any:
        return self.site.as_dict()

    def reset(self, request: web.Request, body: dict[str, Any]) -> Any:
        self.site.stats = SiteStats()
        self.site.texts.clear()
        for account in self.site.accounts.values():
            account.stats = AccountStats()
            account.texts.clear()
        return {"ok": True}

    def set_site(self, request: web.Request, body: dict[str, Any]) -> Any:
        known = {field.name for field in fields(SiteOptions)}
        _set(self.site.options, body, known)
        return {name: getattr(self.site.options, name) for name in sorted(known)}

    def formkey(self, request: web.Request, body: dict[str, Any]) -> Any:
        self.site.rotate_formkey()
        return {"ok": True}

    def revision(self, request: web.Request, body: dict[str, Any]) -> Any:
        self.site.rotate_revision()
        return {"revision": self.site.options.revision}

    def list_accounts(self, request: web.Request, body: dict[str, Any]) -> Any:
        return [account.as_dict() for account in self.site.accounts.values()]

    def add_account(self, request: web.Request, body: dict[str, Any]) -> Any:
        email = str(body.pop("email", ""))
        account = self.site.add_account(email)
        _set(account, body, SETTABLE)
        return account.as_dict()

    def show_account(self, request: web.Request, body: dict[str, Any]) -> Any:
        return self._account(request).as_dict()

    def set_account(self, request: web.Request, body: dict[str, Any]) -> Any:
        account = self._account(request)
        _set(account, body, SETTABLE)
        return account.as_dict()

    def script(self, request: web.Request, body: dict[str, Any]) -> Any:
        behaviour = Behaviour.from_json(body["behaviour"])
        self._account(request).script(behaviour, body.get("times", 1))
        return behaviour.as_dict()

    def fault(self, request: web.Request, body: dict[str, Any]) -> Any:
        account = self._account(request)
        account.fail(body["kind"], where=body.get("where", ""), times=body.get("times", 1))
        return {"faults": len(account.faults)}

    def act(self, request: web.Request, body: dict[str, Any]) -> Any:
        account = self._account(request)
        ACTIONS[body["action"]](account)
        return account.as_dict()


def _set(target: object, values: dict[str, Any], allowed: frozenset[str] | set[str]) -> None:
    if unknown := set(values) - allowed:
        raise ValueError(f"not settable: {', '.join(sorted(unknown))}")
    for name, value in values.items():
        setattr(target, name, tuple(value) if name == "rate_limit" and value else value)
