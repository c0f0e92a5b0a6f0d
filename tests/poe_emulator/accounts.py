"""Emulated accounts: what the site knows about one session, and what tests want to know about it."""

from __future__ import annotations

import json
import secrets
import string
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .behaviour import Behaviour, Fault
from .following import Follows
from .pushes import Channel

if TYPE_CHECKING:
    from .answers import Answer
    from .chats import Chat

PointsSpelling = Literal["old", "new", "both"]
DEFAULT_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36"
DAY = 86_400.0


def new_formkey() -> str:
    return secrets.token_hex(16)


def new_session() -> str:
    """A p-b value: 22 URL-safe base64 characters and two equal signs."""
    alphabet = string.ascii_letters + string.digits + "-_"
    return "".join(secrets.choice(alphabet) for _ in range(22)) + "=="


@dataclass(slots=True)
class AccountStats:
    """What happened to one account. `after_challenge` and times are seconds."""

    requests: int = 0
    pages: int = 0
    settings_reads: int = 0
    gql: dict[str, int] = field(default_factory=dict)
    """Requests by operation name."""
    max_concurrent: int = 0
    max_attended: int = 0
    """See `SiteStats`."""
    sends_received: int = 0
    """SendMessage calls that passed every check, whatever became of them."""
    sends_accepted: int = 0
    regenerates: int = 0
    answers_completed: int = 0
    answers_cancelled: int = 0
    duplicate_texts: int = 0
    """Accepted sends whose text this account had accepted before."""
    duplicate_nonces: int = 0
    unsubscribed_sends: int = 0
    """Sends on a channel without subscriptions: nobody hears the answer there."""
    chats_created: int = 0
    chats_deleted: int = 0
    breaks: int = 0
    uploads: int = 0
    sockets_opened: int = 0
    socket_cookies: list[str] = field(default_factory=list)
    """Names of cookies that came with websocket requests; must stay empty."""
    channels_issued: int = 0
    telemetry: int = 0
    after_challenge: list[float] = field(default_factory=list)
    """Arrival of each request after the first challenge, counted from that challenge."""
    cf_bm_fresh: int = 0
    """Requests that returned the newest __cf_bm, an older one, or none."""
    cf_bm_stale: int = 0
    cf_bm_missing: int = 0
    points_spent: int = 0


@dataclass(slots=True, kw_only=True)
class Account:
    """One session of the emulated site. Fields may be changed at any time by a test."""

    email: str
    uid: int = field(default_factory=lambda: secrets.randbelow(10**9) + 10**9)
    p_b: str = field(default_factory=new_session)
    p_lat: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    cf_clearance: str | None = None
    user_agent: str = DEFAULT_AGENT
    formkey: str = field(default_factory=new_formkey)
    alive: bool = True
    """False: the session is dead (307 to the login page, 401 on API calls)."""
    require_p_lat: bool = False
    balance: int = 3000
    """Points of the plan; spent first."""
    addon: int = 0
    allotment: int = 3000
    next_grant_at: float = field(default_factory=lambda: time.time() + DAY)
    """Unix seconds; the balance becomes the allotment then, and again each day."""
    points_spelling: PointsSpelling = "both"
    plan: str | None = None
    """Plan display name; None = a free account."""
    cancelled_cost: int = 0
    """Points taken for a cancelled answer."""
    concurrency: int = 3
    rate_limit: tuple[int, float] | None = None
    """At most so many sends within so many seconds."""
    follows: Follows = ""
    """How well its bots do what messages say about tools and forms of answers; see `following`."""
    standing: Behaviour = field(default_factory=Behaviour)
    scripted: deque[Behaviour] = field(default_factory=deque)
    """Behaviours for the next messages, one each; `standing` when empty."""
    faults: list[Fault] = field(default_factory=list)
    challenged_since: float | None = None
    """Monotonic seconds of the first challenge served."""
    challenge_kind: str = ""
    """While set, every request is answered with this challenge."""
    channels: dict[str, Channel] = field(default_factory=dict)
    chats: dict[int, Chat] = field(default_factory=dict)
    running: dict[int, Answer] = field(default_factory=dict)
    """Answers in progress by the message id of the answer."""
    nonces: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    sent_at: deque[float] = field(default_factory=deque)
    upload_tokens: dict[str, str] = field(default_factory=dict)
    """Token of a finished upload -> file name."""
    charges: list[dict[str, Any]] = field(default_factory=list)
    issued_cf_bm: deque[str] = field(default_factory=lambda: deque(maxlen=1000))
    stats: AccountStats = field(default_factory=AccountStats)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that an operator would copy from the browser."""
        jar = {"p-b": self.p_b, "p-lat": self.p_lat}
        if self.cf_clearance:
            jar["cf_clearance"] = self.cf_clearance
        return jar

    @property
    def points(self) -> int:
        return self.balance + self.addon

    def spend(self, points: int, bot: str, now: float) -> None:
        from_plan = min(points, self.balance)
        self.balance -= from_plan
        self.addon -= min(points - from_plan, self.addon)
        self.stats.points_spent += points
        self.charges.append({"pointCost": points, "creationTime": int(now * 1e6), "bot": bot})

    def renew(self, now: float) -> None:
        """Grant what has become due since the last look."""
        while now >= self.next_grant_at:
            self.balance = self.allotment
            self.next_grant_at += DAY

    def script(self, behaviour: Behaviour, times: int | None = 1) -> None:
        """Make the next `times` messages go that way; None = every one from now on."""
        if times is None:
            self.standing = behaviour
        else:
            self.scripted.extend([behaviour] * times)

    def next_behaviour(self) -> Behaviour:
        return self.scripted.popleft() if self.scripted else self.standing

    def fail(self, kind: str, *, where: str = "", times: int | None = 1) -> None:
        """Make the next `times` requests to `where` fail; see `Fault`."""
        self.faults.append(Fault(kind, where, times))

    def take_fault(self, where: str) -> Fault | None:
        for fault in self.faults:
            if fault.where in ("", where):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                return fault
        return None

    def challenge(self, kind: str = "challenge") -> None:
        """Answer every request with a challenge from now on."""
        self.challenge_kind = kind

    def clear_challenge(self) -> None:
        """The operator has passed the challenge in the browser."""
        self.challenge_kind = ""
        self.challenged_since = None

    def push(self, texts: list[tuple[str, str]]) -> None:
        """Send (subscription name, event text) pairs, as one frame, to each channel that asked for them."""
        for channel in self.channels.values():
            if wanted := [text for name, text in texts if name in channel.subscribed and not channel.expired]:
                channel.append(wanted)

    def open_channels(self) -> list[Channel]:
        return [channel for channel in self.channels.values() if channel.sockets]

    def attended(self) -> int:
        """Answers in progress whose caller exists."""
        return sum(answer.is_attended() for answer in self.running.values())

    def drop_sockets(self) -> None:
        for channel in self.open_channels():
            for socket in list(channel.sockets):
                socket.cut()

    def silence_sockets(self) -> None:
        """Open sockets deliver nothing more and answer no text ping; new ones work."""
        for channel in self.open_channels():
            for socket in channel.sockets:
                socket.silent = True

    def refetch_channels(self) -> None:
        """Tell every live channel to fetch anew; it gets no further events."""
        for channel in self.channels.values():
            if not channel.expired:
                channel.expire()

    def as_dict(self) -> dict[str, Any]:
        """Everything that control shows; JSON-ready."""
        return {
            "email": self.email,
            "cookies": self.cookies,
            "user_agent": self.user_agent,
            "formkey": self.formkey,
            "alive": self.alive,
            "balance": self.balance,
            "addon": self.addon,
            "allotment": self.allotment,
            "next_grant_at": self.next_grant_at,
            "concurrency": self.concurrency,
            "running": len(self.running),
            "chats_alive": len(self.chats),
            "challenge_kind": self.challenge_kind,
            "stats": json.loads(json.dumps(asdict(self.stats))),
        }
