"""The page hides the formkey as the site does, and hands decoys to engines that look wrong."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Literal

import pytest

from tests.poe_emulator import PoeEmulator
from tests.poe_emulator.page import app_bundle, html

WINDOW = "const window={document:{hack:1},navigator:{userAgent:'a'}};"
HIDDEN = "var process=undefined;var QuickJS=undefined;"
SEEDED = re.compile(r'window\.(\w+)\("([^"]{16,})"\)')
PLAIN = re.compile(r"window\.([a-zA-Z0-9]+)=function\(\)\{return window")
SECRET = re.compile(r'let useFormkeyDecode=[\s\S]*?(window\.\w+="[^"]+")')


@pytest.fixture(scope="module")
def quickjs() -> ModuleType:
    module: ModuleType = pytest.importorskip("quickjs")
    return module


def inline_code(page: str) -> str:
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    return "".join(
        text
        for attributes, text in scripts
        if "src=" not in attributes
        and "application/json" not in attributes
        and "function" in text
        and "document." not in text
    )


def derive(quickjs: ModuleType, page: str, prelude: str) -> str:
    code = inline_code(page)
    if seeded := SEEDED.search(code):
        call = f'window.{seeded[1]}("{seeded[2]}")'
    else:
        plain = PLAIN.search(code)
        assert plain
        call = f"window.{plain[1]}()"
    return str(quickjs.Context().eval(f"{prelude}{code};{call}"))


@pytest.mark.parametrize("form", ["plain", "seeded"])
async def test_the_formkey_is_derived_only_in_a_browser(quickjs: ModuleType, form: Literal["plain", "seeded"]) -> None:
    async with PoeEmulator(accounts=1, formkey_form=form, page_bytes=100_000) as emu:
        key = emu.accounts[0].formkey
        page = html(emu.site, key, {})
        assert abs(len(page) - 100_000) < 200
        assert inline_code(page) != inline_code(html(emu.site, key, {}))
        secret = SECRET.search(app_bundle(emu.site))
        assert secret
        right = f"{WINDOW}{HIDDEN}{secret[1]};"
        whole = derive(quickjs, page, right)
        assert whole[:32] == key
        assert len(whole) > 32
        decoys = {
            "no secret": f"{WINDOW}{HIDDEN}",
            "no document": f"const window={{navigator:{{userAgent:'a'}}}};{secret[1]};",
            "no navigator": f"const window={{document:{{a:1}}}};{secret[1]};",
            "process": f"{WINDOW}var process={{}};{secret[1]};",
            "QuickJS": f"{WINDOW}var QuickJS={{}};{secret[1]};",
        }
        for name, prelude in decoys.items():
            decoy = derive(quickjs, page, prelude)
            assert len(decoy) > 32, name
            assert decoy[:32] != key, name
        if form == "seeded":
            plain = PLAIN.search(inline_code(page))
            assert plain
            unseeded = quickjs.Context().eval(f"{right}{inline_code(page)};window.{plain[1]}()")
            assert unseeded[:32] != key


@pytest.mark.parametrize("where", ["link", "old-link", "html"])
async def test_the_revision_is_where_it_was_put(where: Literal["link", "old-link", "html"]) -> None:
    async with PoeEmulator(revision_in=where) as emu:
        new = f"poecdn.net/assets/_next/static/{emu.options.revision}/chunks/"
        assert (new in html(emu.site, "k" * 32, None)) is (where != "old-link")
