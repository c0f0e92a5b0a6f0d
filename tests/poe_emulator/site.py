"""The emulated site as one value: its options, accounts, bots and bookkeeping; no I/O here."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .accounts import Account, new_formkey
from .chats import Bot, standard_bots
from .protocol import Generation, Profile
from .pushes import Channel


@dataclass(slots=True, kw_only=True)
class SiteOptions:
    """How the site is set up. All of it may be changed while it runs."""

    profile: Profile = "current"
    origin: str = "https://poe.com"
    """The only Origin that is taken; Referer is the same with a slash."""
    revision: str = field(default_factory=lambda: secrets.token_hex(20))
    revision_mode: Literal["strict", "ignored"] = "strict"
    revision_in: Literal["link", "old-link", "html"] = "link"
    """Where pages show the revision: Link header in the new or old form, or only in the HTML."""
    formkey_form: Literal["plain", "seeded"] = "plain"
    formkey_scope: Literal["account", "shared"] = "account"
    page_bytes: int = 0
    """Pages are padded to about this size."""
    base_host: str = "poe.com"
    asset_base: str = ""
    """Prefix of script addresses; "" = below this server, with the asset host's name in the path."""
    replay_kept: int = 256
    """Messages kept per channel for replay."""
    cf_bm: bool = True
    """Responses to an account set a fresh __cf_bm."""
    dead_gql: Literal["401", "null-viewer"] = "401"
    """What API calls of a dead session get."""
    upload_token_key: Literal["fileHashJwt", "file_hash_jwt", "jwt", "token", "bare"] = "fileHashJwt"
    chat_page: int = 20
    """Messages in a ChatPageQuery answer."""
    challenge_everyone: str = ""
    """A challenge kind that every visitor gets (an address the site does not like)."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request that the real site would have refused, and why."""

    at: float
    account: str
    where: str
    reason: str
    status: int


@dataclass(slots=True)
class SiteStats:
    """Bookkeeping over all accounts."""

    max_concurrent: int = 0
    """Answers in the making at once."""
    max_attended: int = 0
    """The same without those whose caller was gone by then: the site goes on with what a killed process asked for."""
    requests: int = 0
    duplicate_texts: int = 0
    """Accepted sends whose text some account had accepted before."""
    challenges_served: int = 0
    telemetry: int = 0
    odd_names: dict[str, int] = field(default_factory=dict)
    """Query names that do not belong to the hash they came with."""
    rejections: list[Rejection] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """The rejections as readable lines, for assertion messages."""
        return [f"{r.status} {r.where} [{r.account}]: {r.reason}" for r in self.rejections]


@dataclass(slots=True, kw_only=True)
class Site:
    """Everything the request handlers share."""

    options: SiteOptions = field(default_factory=SiteOptions)
    base_url: str = ""
    now: Callable[[], float] = time.time
    accounts: dict[str, Account] = field(default_factory=dict)
    sessions: dict[str, Account] = field(default_factory=dict)
    """Look-up aid of `session`."""
    bots: list[Bot] = field(default_factory=standard_bots)
    stats: SiteStats = field(default_factory=SiteStats)
    shared_formkey: str = field(default_factory=new_formkey)
    page_secret: tuple[str, str] = field(default_factory=lambda: (f"s{secrets.token_hex(6)}", secrets.token_hex(20)))
    """Name and value of the window secret in the app bundle."""
    running: int = 0
    texts: set[str] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    anonymous_sessions: deque[str] = field(default_factory=lambda: deque(maxlen=1000))

    def add_account(self, email: str = "", **fields: Any) -> Account:
        """A new live account; fields as in `Account`."""
        account = Account(email=email or f"account{len(self.accounts) + 1}@example.test", **fields)
        self.accounts[account.email] = account
        return account

    def account(self, email_or_session: str) -> Account:
        """By e-mail address or p-b; KeyError when unknown."""
        if found := self.accounts.get(email_or_session):
            return found
        for account in self.accounts.values():
            if account.p_b == email_or_session:
                return account
        raise KeyError(email_or_session)

    def session(self, p_b: str | None) -> Account | None:
        """The account of a session cookie, dead or alive."""
        if not p_b:
            return None
        known = self.sessions.get(p_b)
        if known is None or known.p_b != p_b:
            known = next((account for account in self.accounts.values() if account.p_b == p_b), None)
            if known is not None:
                self.sessions[p_b] = known
        return known

    def formkey_of(self, account: Account) -> str:
        return self.shared_formkey if self.options.formkey_scope == "shared" else account.formkey

    def rotate_formkey(self, account: Account | None = None) -> None:
        """Old keys get 400 until they are derived anew; None = every account's."""
        self.shared_formkey = new_formkey()
        for changed in [account] if account else self.accounts.values():
            changed.formkey = new_formkey()

    def rotate_revision(self) -> None:
        """The site was deployed anew."""
        self.options.revision = secrets.token_hex(20)

    def issue_channel(self, account: Account) -> Channel:
        channel = Channel(account.email, self.options.replay_kept, self.options.base_host)
        account.channels[channel.name] = channel
        account.stats.channels_issued += 1
        return channel

    def channel(self, name: str) -> tuple[Account, Channel] | None:
        for account in self.accounts.values():
            if channel := account.channels.get(name):
                return account, channel
        return None

    def bot(self, name: str) -> Bot | None:
        """By codename or handle, in any case."""
        wanted = name.lower().replace(" ", "")
        for bot in self.bots:
            if wanted in (bot.codename, bot.handle.lower()) and bot.deletion_state == "not_deleted":
                return bot
        return None

    def generations(self) -> tuple[Generation, ...]:
        profile = self.options.profile
        return ("legacy", "current") if profile == "both" else (profile,)

    def reject(self, account: Account | None, where: str, reason: str, status: int) -> None:
        who = account.email if account else "-"
        self.stats.rejections.append(Rejection(round(self.now(), 3), who, where, reason, status))

    def note_running(self, account: Account) -> None:
        """Called when an answer begins."""
        mine, whole = account.stats, self.stats
        mine.max_concurrent = max(mine.max_concurrent, len(account.running))
        whole.max_concurrent = max(whole.max_concurrent, self.running)
        # To look at connections costs time: only where the figure can grow.
        if len(account.running) > mine.max_attended:
            mine.max_attended = max(mine.max_attended, account.attended())
        if self.running > whole.max_attended:
            attended = sum(each.attended() for each in self.accounts.values())
            whole.max_attended = max(whole.max_attended, attended)

    def note_accepted(self, account: Account, text: str) -> None:
        """Count a send that the site took, and whether the same text came before."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        account.stats.sends_accepted += 1
        account.stats.duplicate_texts += digest in account.texts
        self.stats.duplicate_texts += digest in self.texts
        account.texts.add(digest)
        self.texts.add(digest)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def as_dict(self) -> dict[str, Any]:
        """All counters; JSON-ready."""
        return {
            **asdict(self.stats),
            "running": self.running,
            "accounts": {account.email: account.as_dict() for account in self.accounts.values()},
        }
