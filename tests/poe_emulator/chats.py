"""Bots, chats and messages as the site stores them, and how they look in answers and events."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import string
import time
from dataclasses import dataclass, field
from typing import Any

_ids = itertools.count(secrets.randbelow(10**6) + 300_000_000)


def global_id(kind: str, number: object) -> str:
    return base64.b64encode(f"{kind}:{number}".encode()).decode()


@dataclass(slots=True, kw_only=True)
class Bot:
    """One model of the site. `price` is in points per message."""

    handle: str
    codename: str = ""
    price: int = 20
    is_down: bool = False
    accessible: bool = True
    official: bool = True
    uploads: bool = True
    draws: bool = False
    """Answers with a picture, in markdown."""
    timeout_s: int = 120
    deletion_state: str = "not_deleted"
    bot_id: int = field(default_factory=lambda: next(_ids))

    def __post_init__(self) -> None:
        self.codename = self.codename or self.handle.lower().replace(" ", "")

    def node(self) -> dict[str, Any]:
        """Superset of what both generations read."""
        return {
            "id": global_id("Bot", self.bot_id),
            "botId": self.bot_id,
            "handle": self.handle,
            "displayName": self.handle,
            "nickname": self.codename,
            "model": self.codename,
            "supportsFileUpload": self.uploads,
            "allowsImageAttachments": self.uploads,
            "uploadFileSizeLimit": 52_428_800,
            "messageTimeoutSecs": self.timeout_s,
            "viewerIsCreator": False,
            "deletionState": self.deletion_state,
            "canUserAccessBot": self.accessible,
            "noAccessMessage": None if self.accessible else "This bot needs a subscription.",
            "limitedAccessType": None if self.accessible else "subscription_only",
            "isApiBot": not self.official,
            "isOfficialBot": self.official,
            "isDown": self.is_down,
            "customUIDefinition": json.dumps({"parameter_controls": []}),
        }


def standard_bots() -> list[Bot]:
    """Old bots with codenames, new ones known by handle, and enough of them for several pages."""
    old = {
        "Assistant": "capybara",
        "GPT-3.5-Turbo": "chinchilla",
        "GPT-4o": "gpt4_o",
        "GPT-4o-Mini": "gpt4_o_mini",
        "Claude-3-Opus": "claude_2_1_cedar",
        "Claude-3-Sonnet": "claude_2_1_bamboo",
        "Claude-3-Haiku": "claude_3_haiku",
        "Claude-3.5-Sonnet": "claude_3_igloo",
        "Gemini-1.5-Flash-Search": "gemini_pro_search",
    }
    new = ["GPT-5", "GPT-5-Mini", "Claude-Opus-4.5", "Claude-Sonnet-4.5", "Gemini-2.5-Pro", "Web-Search"]
    return [
        *(Bot(handle=handle, codename=codename) for handle, codename in old.items()),
        *(Bot(handle=handle) for handle in new),
        Bot(handle="Painter", price=150, draws=True),
        Bot(handle="Locked-Bot", accessible=False),
        Bot(handle="Sleeping-Bot", is_down=True),
        Bot(handle="Gone-Bot", deletion_state="deleted"),
        *(Bot(handle=f"Community-Bot-{n}", official=False) for n in range(1, 15)),
    ]


@dataclass(slots=True, kw_only=True)
class Message:
    """One message. creationTime is in microseconds on the wire."""

    author: str
    text: str
    state: str = "complete"
    state_text: str | None = None
    client_nonce: str | None = None
    attachments: list[str] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    """What a bot hung on its answer: name, address, media type."""
    followups: list[str] = field(default_factory=list)
    cancelled_at: int | None = None
    created_at: float = field(default_factory=time.time)
    message_id: int = field(default_factory=lambda: next(_ids))
    code: str = field(default_factory=lambda: secrets.token_hex(8))

    def node(self) -> dict[str, Any]:
        return {
            "id": global_id("Message", self.message_id),
            "messageId": self.message_id,
            "messageCode": self.code,
            "creationTime": int(self.created_at * 1e6),
            "clientNonce": self.client_nonce,
            "author": self.author,
            "state": self.state,
            "messageStateText": self.state_text,
            "text": self.text,
            "contentType": "text_markdown",
            "sourceType": "chat_input",
            "attachments": [
                *({"name": name} for name in self.attachments),
                *({"name": name, "url": url, "file": {"mimeType": kind}} for name, url, kind in self.files),
            ],
            "followupActions": [{"bodyText": text} for text in self.followups],
            "textLengthOnCancellation": self.cancelled_at,
        }


@dataclass(slots=True, kw_only=True)
class Chat:
    """One chat of one account, oldest message first."""

    bot: Bot
    title: str | None = None
    pending_title: str | None = None
    """A title not yet announced; pushed as first event of the next turn."""
    chat_id: int = field(default_factory=lambda: next(_ids))
    code: str = field(
        default_factory=lambda: "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(16))
    )
    messages: list[Message] = field(default_factory=list)

    @property
    def node_id(self) -> str:
        return global_id("Chat", self.chat_id)

    def summary(self) -> dict[str, Any]:
        return {
            "chatId": self.chat_id,
            "chatCode": self.code,
            "id": self.node_id,
            "title": self.title,
            "defaultBotObject": self.bot.node(),
        }

    def message(self, message_id: object) -> Message | None:
        return next((message for message in self.messages if message.message_id == message_id), None)

    def asked_since_break(self) -> list[str]:
        """The human messages that still belong to the conversation."""
        asked: list[str] = []
        for message in self.messages:
            if message.author == "chat_break":
                asked.clear()
            elif message.author == "human":
                asked.append(message.text)
        return asked

    def page(self, count: int, cursor: str | None = None) -> dict[str, Any]:
        """A messagesConnection: the `count` messages before `cursor`, oldest first."""
        end = len(self.messages)
        if cursor:
            end = next((at for at, message in enumerate(self.messages) if str(message.message_id) == cursor), 0)
        start = max(0, end - count)
        shown = self.messages[start:end]
        return {
            "edges": [
                {"node": message.node(), "cursor": str(message.message_id), "id": f"{self.node_id}:{at}"}
                for at, message in enumerate(shown)
            ],
            "pageInfo": {
                "hasPreviousPage": start > 0,
                "startCursor": str(shown[0].message_id) if shown else None,
            },
        }
