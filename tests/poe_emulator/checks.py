"""What the real site would refuse. Pure: values in, a `Refusal` (or nothing) out."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .protocol import SEND_VARIABLES, SUBSCRIPTIONS, TAG_SALT, Generation

_NONCE = re.compile(r"[A-Za-z0-9]{16}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused (for the test) and how it looks to the client."""

    reason: str
    status: int = 400
    message: str = "Bad Request"


def browser(agent: str, wanted_agent: str, cookies: Mapping[str, str], clearance: str | None) -> Refusal | None:
    """The bot guard in front of the site: a clearance belongs to one user agent. Refusal = challenge."""
    if not clearance:
        return None if agent.startswith("Mozilla/5.0 ") else Refusal(f"user agent {agent!r} is no browser", 403)
    if cookies.get("cf_clearance") != clearance:
        return Refusal("cf_clearance missing or wrong", 403)
    if agent != wanted_agent:
        return Refusal(f"user agent {agent!r} does not belong to the cf_clearance", 403)
    return None


def origin(headers: Mapping[str, str], wanted: str) -> Refusal | None:
    if headers.get("Origin") != wanted:
        return Refusal(f"Origin is {headers.get('Origin')!r}")
    if headers.get("Referer") != f"{wanted}/":
        return Refusal(f"Referer is {headers.get('Referer')!r}")
    return None


def formkey(headers: Mapping[str, str], wanted: str) -> Refusal | None:
    sent = headers.get("Poe-Formkey")
    if sent != wanted:
        return Refusal("Poe-Formkey missing" if sent is None else "Poe-Formkey is wrong", 400, "Invalid form key")
    return None


def tag(headers: Mapping[str, str], body: bytes, key: str) -> Refusal | None:
    """`poe-tag-id` signs exactly the bytes of the JSON document."""
    wanted = hashlib.md5(body + (key + TAG_SALT).encode(), usedforsecurity=False).hexdigest()
    if headers.get("poe-tag-id") != wanted:
        return Refusal("poe-tag-id mismatch", 400, "Invalid poe-tag-id")
    return None


def current_headers(headers: Mapping[str, str], query_name: str, revision: str | None) -> Refusal | None:
    """What only the current generation sends; `revision` None = not looked at."""
    if headers.get("poegraphql") != "1":
        return Refusal("poegraphql is not 1")
    if headers.get("poe-queryname") != query_name:
        return Refusal(f"poe-queryname {headers.get('poe-queryname')!r} is not {query_name!r}")
    if revision is not None and headers.get("Poe-Revision") != revision:
        return Refusal(f"Poe-Revision {headers.get('Poe-Revision')!r} is not the site's")
    return None


def body(raw: bytes) -> tuple[str, dict[str, Any], str] | Refusal:
    """Query name, variables and hash of a GraphQL document with exactly the right keys."""
    try:
        document = json.loads(raw)
    except ValueError:
        return Refusal("body is no JSON")
    if not isinstance(document, dict) or set(document) != {"queryName", "variables", "extensions"}:
        return Refusal("body keys are not queryName, variables, extensions")
    name, variables, extensions = document["queryName"], document["variables"], document["extensions"]
    if not isinstance(name, str) or not isinstance(variables, dict):
        return Refusal("queryName is no string or variables no object")
    if not isinstance(extensions, dict) or set(extensions) != {"hash"}:
        return Refusal("extensions is not {hash}")
    if not isinstance(extensions["hash"], str) or not re.fullmatch(r"[0-9a-f]{64}", extensions["hash"]):
        return Refusal("hash is not 64 hex digits")
    return name, variables, extensions["hash"]


def subscriptions(variables: dict[str, Any], generation: Generation) -> str:
    """Why the list is not the one of that generation; "" = it is."""
    wanted = SUBSCRIPTIONS[generation]
    entries = variables.get("subscriptions")
    if set(variables) != {"subscriptions"} or not isinstance(entries, list):
        return "variables are not {subscriptions: [...]}"
    sent: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"subscriptionName", "query", "queryHash"}:
            return "a subscription has not exactly subscriptionName, query, queryHash"
        if entry["query"] is not None:
            return "a subscription's query is not null"
        sent[entry["subscriptionName"]] = entry["queryHash"]
    if len(sent) != len(entries):
        return "a subscription is listed twice"
    if missing := sorted(set(wanted) - set(sent)):
        return f"subscriptions missing: {', '.join(missing)}"
    if extra := sorted(set(sent) - set(wanted)):
        return f"subscriptions unknown: {', '.join(extra)}"
    if stale := sorted(name for name in wanted if sent[name] != wanted[name]):
        return f"subscription hashes wrong: {', '.join(stale)}"
    return ""


def send_variables(variables: dict[str, Any], generation: Generation) -> str:
    """Why the variables of SendMessageMutation do not fit; "" = they do."""
    wanted = SEND_VARIABLES[generation]
    if missing := sorted(wanted - set(variables)):
        return f"variables missing: {', '.join(missing)}"
    if extra := sorted(set(variables) - wanted):
        return f"variables unknown: {', '.join(extra)}"
    chat_id = variables["chatId"]
    if chat_id is not None and (not isinstance(chat_id, int) or isinstance(chat_id, bool)):
        return "chatId is neither null nor an integer"
    if variables["shouldFetchChat"] is not (chat_id is None):
        return "shouldFetchChat must be true for a new chat and false otherwise"
    if not isinstance(variables["bot"], str) or not isinstance(variables["query"], str):
        return "bot or query is no string"
    if not isinstance(variables["clientNonce"], str) or not _NONCE.fullmatch(variables["clientNonce"]):
        return "clientNonce is not 16 letters or digits"
    if not _is_texts(variables["attachments"]) or variables["existingMessageAttachmentsIds"] != []:
        return "attachments is no list of strings or existingMessageAttachmentsIds not empty"
    if why := _source(variables["source"], home=generation == "current" and chat_id is None):
        return why
    return _legacy_rest(variables) if generation == "legacy" else _current_rest(variables)


def _source(source: Any, *, home: bool) -> str:
    metadata: dict[str, Any] = {"useVoiceRecord": False}
    if home:
        metadata["newChatContext"] = "home_page_input"
    wanted = {"sourceType": "chat_input", "chatInputMetadata": metadata}
    return "" if source == wanted else f"source is not {wanted}"


def _legacy_rest(variables: dict[str, Any]) -> str:
    price = variables["messagePointsDisplayPrice"]
    if price is not None and not isinstance(price, int):
        return "messagePointsDisplayPrice is neither null nor an integer"
    return "" if isinstance(variables["sdid"], str) else "sdid is no string"


def _current_rest(variables: dict[str, Any]) -> str:
    if not isinstance(variables["chatNonce"], str) or not _NONCE.fullmatch(variables["chatNonce"]):
        return "chatNonce is not 16 letters or digits"
    if variables["referencedMessageId"] is not None:
        return "referencedMessageId is not null"
    try:
        if uuid.UUID(variables["sdid"]).version != 4:
            return "sdid is no uuid4"
    except (ValueError, AttributeError, TypeError):
        return "sdid is no uuid4"
    if variables["parameters"] is not None:
        try:
            json.loads(variables["parameters"])
        except (ValueError, TypeError):
            return "parameters is neither null nor a JSON string"
    jwts = variables["fileHashJwts"]
    if not _is_texts(jwts) or len(jwts) != len(variables["attachments"]):
        return "fileHashJwts has not one entry per attachment"
    return ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
