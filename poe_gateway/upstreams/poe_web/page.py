"""Read the home page: scripts, page data, revision and the signs of trouble. Pure, standard library only.

Pages are megabytes, so this file is also a program: HTML on stdin, one JSON document on stdout (see
``sandbox``). Therefore it must not import anything from the package.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any, TypedDict

_REVISION_FORMS = (
    re.compile(r"poecdn\.net/assets/_next/static/([^/\"'<>\s]{6,64})/(?:chunks|css)/"),
    re.compile(r"poecdn\.net/assets/translations/([0-9a-f]{40})/"),
)
_REVISION = re.compile(r"[0-9A-Za-z_-]{6,64}\Z")
_NOT_REVISIONS = frozenset({"chunks", "css", "media"})
_SECRET = re.compile(r"""window\.[A-Za-z_$][\w$]*\s*=\s*("[^"\n]*"|'[^'\n]*')""")
_DEEPEST = 40
_MOST_APPS = 4


class PageFacts(TypedDict):
    """What a page says; JSON-ready."""

    title: str
    challenge: bool
    """An element with the challenge's id is there."""
    suspended: bool
    """The sentence for suspended accounts stands in the visible text."""
    tchannel: dict[str, Any] | None
    revision: str | None
    """As the page's addresses have it."""
    build: str | None
    """``buildId`` of the page data: usually the revision too, but less sure."""
    app_sources: list[str]
    """Addresses that may be the app bundle's, as written, in document order."""
    scripts: list[str]
    """Inline scripts that may define the key function, in document order."""
    other_scripts: list[str]
    """The remaining inline JavaScript: a seeded call may stand there."""


class _Reader(HTMLParser):
    """Collects scripts, title and page data in document order."""

    def __init__(self, challenge_element: str, suspended: str) -> None:
        super().__init__(convert_charrefs=True)
        self.challenge_element = challenge_element
        self.sentence = suspended
        self.title = ""
        self.challenge = False
        self.suspended = False
        self.app_sources: list[str] = []
        self.inline: list[str] = []
        self.documents: list[tuple[bool, str]] = []
        self._inside = ""
        self._text: list[str] = []
        self._script: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if self.challenge_element and (
            found.get("id") == self.challenge_element or self.challenge_element in (found.get("class") or "").split()
        ):
            self.challenge = True
        if tag in ("script", "style", "title"):
            self._inside, self._text, self._script = tag, [], found

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._text.append(data)
        elif self.sentence and self.sentence in data:
            self.suspended = True

    def handle_endtag(self, tag: str) -> None:
        if tag != self._inside:
            return
        text, self._inside = "".join(self._text), ""
        if tag == "title" and not self.title:
            self.title = text.strip()
        if tag == "script":
            self._end_script(text)

    def _end_script(self, text: str) -> None:
        source, kind = self._script.get("src"), (self._script.get("type") or "").strip().lower()
        if source:
            if "_app" in source and source not in self.app_sources and len(self.app_sources) < _MOST_APPS:
                self.app_sources.append(source)
        elif kind == "application/json":
            self.documents.append((self._script.get("id") == "__NEXT_DATA__", text))
        elif text.strip():
            self.inline.append(text)


def _find(value: Any, key: str, depth: int = 0) -> dict[str, Any] | None:
    """The first object named ``key`` at any depth."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, dict):
        found = value.get(key)
        if isinstance(found, dict):
            return found
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            if (found := _find(item, key, depth + 1)) is not None:
                return found
    return None


def revision_in(text: str) -> str | None:
    """The site revision in a Link header or in HTML: the new form of address first, then the old one."""
    for form in _REVISION_FORMS:
        for match in form.finditer(text):
            if match.group(1) not in _NOT_REVISIONS:
                return match.group(1)
    return None


def revision_of(headers: Mapping[str, str], facts: PageFacts | None) -> str | None:
    """From the Link header, else from the page."""
    return revision_in(headers.get("Link", "")) or (facts["revision"] if facts else None)


def window_secret(bundle: str) -> str | None:
    """The assignment ``window.<name>="<value>"`` that follows the key decoder in the app bundle, as code."""
    start = bundle.find("let useFormkeyDecode=")
    match = _SECRET.search(bundle, start) if start >= 0 else None
    return match.group(0) + ";" if match else None


def bundle_revision(bundle: str) -> str | None:
    """The revision as newer app bundles carry it."""
    match = re.search(r"""["']poe-revision["']\s*:\s*["']([0-9a-f]{20,64})["']""", bundle)
    return match.group(1) if match else None


def read_page(html: str, *, challenge_element: str = "", suspended: str = "") -> PageFacts:
    """All facts of one page. Never raises for odd HTML: what is not there is None or empty."""
    reader = _Reader(challenge_element, suspended)
    reader.feed(html)
    reader.close()
    tchannel, build = None, None
    for is_next_data, text in sorted(reader.documents, key=lambda document: not document[0]):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            continue
        tchannel = tchannel or _find(data, "tchannelData")
        if is_next_data and isinstance(data, dict) and isinstance(data.get("buildId"), str):
            build = data["buildId"] if _REVISION.match(data["buildId"]) else None
    chosen = [text for text in reader.inline if "function" in text and "document." not in text]
    return PageFacts(
        title=reader.title[:200],
        challenge=reader.challenge,
        suspended=reader.suspended,
        tchannel=tchannel,
        revision=revision_in(html),
        build=build,
        app_sources=reader.app_sources,
        scripts=chosen,
        other_scripts=[text for text in reader.inline if text not in chosen],
    )


def main() -> None:
    """``{"html", "challenge_element", "suspended"}`` on stdin -> PageFacts on stdout."""
    asked = json.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(read_page(**asked)).encode())


if __name__ == "__main__":
    main()
