"""The protocol as data: everything about the site that has changed before and will change again.

``protocol.json`` beside this module is the current generation; an operator may put another file in its place
(``load_protocol(path)``) and hand the result to ``PoeWeb.use_protocol`` without a restart. Nothing here does
network I/O; the loader reads one file and checks it once, so that a typo is found at start-up.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import msgspec

StatusMeaning = Literal["accepted", "depleted", "too_long", "no_access", "attachment", "rate_limited"]
"""What a status of the send mutation stands for; ``outcomes`` turns it into an Outcome."""

StateMeaning = Literal["going_on", "done", "cancelled", "too_long", "depleted"]
"""What the state of an answer stands for; states that start with ``error`` and are not listed are transient."""

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_PLACEHOLDERS = frozenset({"origin", "query_name", "tag", "formkey", "channel", "revision"})
_OPERATIONS = frozenset(
    {
        "subscribe",
        "send",
        "settings",
        "bots",
        "chat_page",
        "chat_list",
        "delete_chat",
        "cancel_jobs",
        "cancel_message",
        "bot",
    }
)


class ProtocolError(ValueError):
    """The protocol file cannot be used; the message names the culprit."""


# forbid_unknown_fields throughout: a misspelt key is an error, not a silent default.


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One persisted query: the name that travels and the 64 hex digits that decide."""

    query_name: str
    hash: str


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the subscription list, in the site's own spelling."""

    subscriptionName: str
    queryHash: str


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Addresses below the base URL."""

    home: str
    login: str
    settings: str
    graphql: str
    upload: str


class Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the push channel lives: ``{n}`` random number, ``{base_host}`` and ``{box}`` from the channel."""

    base: str
    path: str
    label_length: int
    """The first host label is cut to this many characters."""


class Headers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Header sets by kind of request; values may hold placeholders. A header whose value is unknown is left out."""

    page: dict[str, str]
    json: dict[str, str]
    asset: dict[str, str]
    graphql: dict[str, str]
    upload: dict[str, str]
    socket: dict[str, str]


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constant parts of the send mutation's variables."""

    source_new: dict[str, Any]
    source_continued: dict[str, Any]
    constants: dict[str, Any]
    nonce_length: int


class Signs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the site says that something is wrong."""

    challenge_header: tuple[str, str]
    challenge_title: str
    challenge_element: str
    stale_keys: tuple[str, ...]
    """Lower-case pieces of error messages about a refused key, tag or token."""
    refusal_words: tuple[str, ...]
    """The same, but too common to be looked for anywhere but in the body of a 403."""
    suspended: str
    """The whole sentence that a suspended account is shown."""
    refused_status: tuple[int, ...]
    """5xx that say that the request was not taken up at all."""


class ProtocolData(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One generation of the protocol."""

    format: Literal[1]
    generation: str
    observed: str
    """Day on which this was last seen in use (ISO date)."""
    origin: str
    tag_salt: str
    default_user_agent: str
    asset_hosts: tuple[str, ...]
    """Hosts, with their subdomains, from which page scripts may be fetched beside the site itself."""
    paths: Paths
    push: Push
    headers: Headers
    cookies: dict[str, str]
    """Credential field -> cookie name."""
    operations: dict[str, Operation]
    subscriptions: tuple[Subscription, ...]
    send: Send
    bots_variables: dict[str, Any]
    statuses: dict[str, StatusMeaning]
    states: dict[str, StateMeaning]
    job_done_states: tuple[str, ...]
    signs: Signs
    ignored_authors: tuple[str, ...]
    tool_authors: tuple[str, ...]
    codenames: dict[str, str]
    """Handle -> name that the send mutation wants, where the two differ by more than case and spaces."""
    prices: dict[str, int]
    """Handle -> points per message where the price is fixed. The site publishes none any more: learn from costs."""

    def codename(self, handle: str) -> str:
        """The name to send to: the codename of an old bot, else the handle in lower case without spaces."""
        wanted = handle.strip().lower()
        for known, code in self.codenames.items():
            if known.lower() == wanted:
                return code
        return wanted.replace(" ", "")


def parse_protocol(raw: bytes) -> ProtocolData:
    """Decode and check a protocol file. Raises ProtocolError."""
    try:
        data = msgspec.json.decode(raw, type=ProtocolData)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"protocol file: {error}") from None
    if missing := sorted(_OPERATIONS - data.operations.keys()):
        raise ProtocolError(f"protocol file: operations lack {', '.join(missing)}")
    hashes = [(name, operation.hash) for name, operation in data.operations.items()]
    hashes += [(entry.subscriptionName, entry.queryHash) for entry in data.subscriptions]
    for name, value in hashes:
        if not _HASH.match(value):
            raise ProtocolError(f"protocol file: the hash of {name} is not 64 lower-case hex digits")
    if not data.subscriptions:
        raise ProtocolError("protocol file: no subscriptions")
    for kind, headers in msgspec.structs.asdict(data.headers).items():
        for header, template in headers.items():
            fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
            if unknown := sorted(fields - _PLACEHOLDERS):
                raise ProtocolError(f"protocol file: header {kind}.{header} asks for unknown {', '.join(unknown)}")
    return data


def load_protocol(path: Path | None = None) -> ProtocolData:
    """The file at ``path``, or the packaged one. Raises ProtocolError."""
    if path is None:
        return parse_protocol(resources.files(__package__).joinpath("protocol.json").read_bytes())
    try:
        return parse_protocol(path.read_bytes())
    except OSError as error:
        raise ProtocolError(f"protocol file: {error.strerror or error}") from None
