"""Pictures and files in answers, pure: those that hang on a message, and those that its markdown shows.

Bots that draw answer with markdown images, by address or by reference; the same picture may hang on the message too.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from poe_gateway.chat.events import ImageMade
from poe_gateway.pool.outcome import Rejected

_MOST = 64
"""Pictures of one answer."""
_LONGEST_URL = 4096
_SAID = 300
"""Characters of a bot's words that are told where a picture was wanted."""
_ADDRESS = r"<?(https://[^\s()<>\[\]]++)>?"
_TARGET = re.compile(r"\]\(\s*+<?([^\s()<>]*+)")
_REFERRED = re.compile(r"!\[([^\[\]]*+)\]\[([^\[\]]++)\]")
_REFERENCE = re.compile(r"^ {0,3}\[([^\[\]]++)\]:[ \t]*+" + _ADDRESS, re.MULTILINE)
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
_UNTOLD = "image/png"


class Attachment(msgspec.Struct, frozen=True):
    """A file of a message. ``media_type`` is empty when it is not told."""

    url: str
    name: str = ""
    media_type: str = ""

    @property
    def is_picture(self) -> bool:
        """As far as its type tells; without one its name and address decide."""
        if self.media_type:
            return self.media_type.startswith("image/")
        return _by_ending(self.name) is not None or _by_address(self.url) is not None


def attachments(value: Any) -> tuple[Attachment, ...]:
    """The files of a message node that have an address; what else stands there is passed over."""
    if not isinstance(value, list):
        return ()
    found = [_attachment(entry) for entry in value[:_MOST] if isinstance(entry, dict)]
    return tuple([attachment for attachment in found if attachment is not None])


def _attachment(entry: dict[str, Any]) -> Attachment | None:
    """Address and type stand in the entry itself, or in its ``file``."""
    file = entry.get("file")
    sources = (entry, file) if isinstance(file, dict) else (entry,)

    def told(*names: str) -> str:
        return next((value for source in sources for name in names if isinstance(value := source.get(name), str)), "")

    url = told("url")
    if not url.startswith(("https://", "http://")) or len(url) > _LONGEST_URL:
        return None
    media_type = told("mimeType", "contentType", "content_type").partition(";")[0].strip().lower()
    return Attachment(url, told("name"), media_type)


def made(text: str, attached: tuple[Attachment, ...]) -> tuple[ImageMade, ...]:
    """The pictures that an answer consists of, each once: those of its text, then those that hang on it."""
    types = {attachment.url: attachment.media_type for attachment in attached}
    urls = [*_shown(text), *(attachment.url for attachment in attached if attachment.is_picture)]
    kept = list(dict.fromkeys(url for url in urls if len(url) <= _LONGEST_URL))[:_MOST]
    return tuple([ImageMade(url=url, media_type=types.get(url) or _by_address(url) or _UNTOLD) for url in kept])


def _shown(text: str) -> list[str]:
    """Addresses of the pictures that a text shows, in their order."""
    targets = {name.lower(): url for name, url in _REFERENCE.findall(text)}
    inline = _inline(text)
    referred = [(match.start(), targets.get(match[2].lower(), "")) for match in _REFERRED.finditer(text)]
    return [url for _, url in sorted([*inline, *referred]) if url]


def _inline(text: str) -> list[tuple[int, str]]:
    """Places and addresses of ``![…](https://…)``. Bots put the prompt between the brackets, whatever it holds."""
    found, done = [], 0
    for match in _TARGET.finditer(text):
        begun = max(done, text.rfind("\n\n", done, match.start()))
        if match[1].startswith("https://") and text.find("![", begun, match.start()) >= 0:
            found.append((match.start(), match[1]))
        done = match.end()
    return found


def appendix(text: str, attached: tuple[Attachment, ...]) -> str:
    """What to append to a text so that nothing that hangs on it is lost: links and pictures as markdown."""
    missing = [attachment for attachment in attached if attachment.url not in text]
    if not missing:
        return ""
    links = "\n\n".join(_markdown(attachment) for attachment in missing)
    return f"\n\n{links}" if text else links


def _markdown(attachment: Attachment) -> str:
    label = re.sub(r"[\[\]\s]+", " ", attachment.name).strip() or "file"
    url = attachment.url.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
    return f"{'!' if attachment.is_picture else ''}[{label}]({url})"


def no_picture(text: str) -> Rejected:
    """A picture was wanted and the bot said something instead: the caller's choice of model or words."""
    said = " ".join(text.split())
    told = said if len(said) <= _SAID else said[:_SAID] + "…"
    return Rejected(public=f"The model made no picture. It answered: {told}", status=400, code="no_image")


def _by_ending(name: str) -> str | None:
    return _TYPES.get(name.rpartition(".")[2].lower())


def _by_address(url: str) -> str | None:
    """The type that an address suggests: by its ending, or because it is one of the site's own pictures."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return None
    return _by_ending(path) or (_UNTOLD if "/image/" in path else None)
