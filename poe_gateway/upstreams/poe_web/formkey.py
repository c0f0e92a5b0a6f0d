"""Derive the form key from a page: which scripts, which call, and what a key looks like.

The page's own scripts compute the key inside a fake browser. When they notice that it is fake they return a
decoy of the same shape, which shows only when the site refuses it: the caller's affair, not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from poe_gateway.upstreams.poe_web.page import PageFacts
from poe_gateway.upstreams.poe_web.sandbox import ENGINE, Sandbox, SandboxFailed

KEY_LENGTH = 32
_MOST_CALLS = 8
_KEY = re.compile(r"[\x21-\x7e]{32}\Z")
_NAME = r"[A-Za-z_$][\w$]*"
_SEEDED = re.compile(rf"""window\.({_NAME})\(\s*("[^"\\\n]{{16,512}}"|'[^'\\\n]{{16,512}}')\s*\)""")
_PLAIN = re.compile(rf"window\.({_NAME})\s*=\s*function\s*\(\s*\)\s*\{{\s*return window")


class FormkeyNotFound(Exception):
    """The page does not hold what the key is made of, or its scripts gave no key."""


def prelude(user_agent: str, secret: str) -> str:
    """The fake browser and the window secret. ``process`` and ``QuickJS`` betray a server: they are undefined."""
    return (
        "var process=undefined,QuickJS=undefined;"
        "var window={document:{},navigator:{userAgent:" + json.dumps(user_agent) + "}};"
        "var document=window.document,navigator=window.navigator;" + secret
    )


def seeded_calls(text: str) -> tuple[str, ...]:
    """All calls ``window.<name>("<16 or more characters>")`` in a script, as written; at most a few."""
    return tuple(match.group(0) for match in islice(_SEEDED.finditer(text), _MOST_CALLS))


def calls(scripts: list[str], other_scripts: Sequence[str]) -> list[str]:
    """Expressions to try, best first: seeded calls of functions that the scripts define, then the plain call."""
    defining = "\n".join(scripts)
    found: list[str] = []
    for text in (defining, *other_scripts):
        for match in _SEEDED.finditer(text):
            name, seed = match.groups()
            if re.search(rf"window\.{re.escape(name)}\s*=[^=]", defining):
                found.append(f"window.{name}({seed})")
    if plain := _PLAIN.search(defining):
        found.append(f"window.{plain.group(1)}()")
    return list(dict.fromkeys(found))


def engine_document(
    facts: PageFacts, secret: str | None, seeded: Sequence[str] = (), *, user_agent: str, memory: int, seconds: float
) -> dict[str, Any]:
    """What the engine is asked to run. Raises FormkeyNotFound.

    ``secret`` is the assignment from the app bundle, ``seeded`` the calls found there.
    """
    if secret is None:
        raise FormkeyNotFound("the app bundle has no window secret")
    wanted = calls(facts["scripts"], [*facts["other_scripts"], *seeded])
    if not wanted:
        raise FormkeyNotFound("the page calls no key function")
    return {
        "prelude": prelude(user_agent, secret),
        "scripts": facts["scripts"],
        "calls": wanted,
        "memory": memory,
        "seconds": seconds,
    }


def key_from(values: list[str]) -> str:
    """The first 32 characters of the first value that is long enough. Raises FormkeyNotFound."""
    for value in values:
        key = value[:KEY_LENGTH]
        if _KEY.match(key):
            return key
    raise FormkeyNotFound("the page scripts gave no key")


async def derive(
    sandbox: Sandbox,
    facts: PageFacts,
    secret: str | None,
    seeded: Sequence[str] = (),
    *,
    user_agent: str,
    memory: int,
    seconds: float,
) -> str:
    """Run the page's scripts and return the key. Raises FormkeyNotFound, SandboxFailed."""
    document = engine_document(facts, secret, seeded, user_agent=user_agent, memory=memory, seconds=seconds)
    answer = await sandbox.run(ENGINE, document)
    values = answer.get("values")
    if not isinstance(values, list):
        raise SandboxFailed("the engine answered with something else")
    return key_from([value for value in values if isinstance(value, str)])
