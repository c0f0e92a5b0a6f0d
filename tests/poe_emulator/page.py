"""The home page: formkey scripts that differ on each load, page data, and the scripts it refers to.

The key is masked with the window secret of the app bundle and per-page noise. A key function that does
not find itself in a browser answers with a decoy: 40 plausible characters that the site will refuse.
"""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

from .site import Site

ASSET_HOST_PATH = "psc2.cf2.poecdn.net"


def _identifier() -> str:
    return secrets.choice(string.ascii_letters) + secrets.token_hex(8)


def asset_base(site: Site) -> str:
    return site.options.asset_base or f"{site.base_url}/{ASSET_HOST_PATH}"


def static_base(site: Site) -> str:
    """Where the scripts live; only the new form shows the revision."""
    revision = f"{site.options.revision}/" if site.options.revision_in != "old-link" else ""
    return f"{asset_base(site)}/assets/_next/static/{revision}"


def link_header(site: Site) -> str | None:
    revision = site.options.revision
    match site.options.revision_in:
        case "link":
            address = f"https://{ASSET_HOST_PATH}/assets/_next/static/{revision}/css/app.css"
            return f"<{address}>; rel=preload; as=style"
        case "old-link":
            return f"<https://{ASSET_HOST_PATH}/assets/translations/{revision}/en.json>; rel=preload; as=fetch"
        case _:
            return None


def masked(key: str, secret: str, salt: int, seed: str = "") -> list[int]:
    """Code points of the key plus a tail that the client must cut off, hidden from plain sight."""
    text = key + secrets.token_hex(4)
    return [
        ord(char) ^ ord(secret[at % len(secret)]) ^ (ord(seed[at % len(seed)]) if seed else 0) ^ ((salt + at) & 127)
        for at, char in enumerate(text)
    ]


def formkey_scripts(site: Site, key: str) -> list[str]:
    """Inline scripts that define the key function; evaluated in order, before the call is appended."""
    secret_name, secret = site.page_secret
    salt, inner, outer = secrets.randbelow(128), _identifier(), _identifier()
    seeded = site.options.formkey_form == "seeded"
    seed = secrets.token_hex(12) if seeded else ""
    numbers = json.dumps(masked(key, secret, salt, seed), separators=(",", ":"))
    body = (
        f'var w=window,s=w.{secret_name},o="",i=0,a={numbers},'
        'h=typeof process!=="undefined"||typeof QuickJS!=="undefined"'
        '||!w["document"]||!w.navigator||!w.navigator.userAgent||!s;'
        "for(;i<a.length;i++){"
        'o+=h?"0123456789abcdef"[(a[i]*7+i)%16]:String.fromCharCode('
        f"a[i]^s.charCodeAt(i%s.length)^(k?k.charCodeAt(i%k.length):0)^(({salt}+i)&127))"
        "}return o"
    )
    define = f"window.{inner}=function(k){{{body}}};"
    if not seeded:
        return [define, f'window.{outer}=function(){{return window.{inner}("")}};']
    # A client that ignores the seeded call finds the plain form, which yields another key.
    trap = f'window.{outer}=function(){{return window.{inner}("none")}};'
    call = f'window.{_identifier()}=function(){{var r=window.{inner}("{seed}");return r}};'
    return [define, trap, call]


def app_bundle(site: Site) -> str:
    """The _app script; the window secret is the first assignment after useFormkeyDecode."""
    name, value = site.page_secret
    return (
        f'(()=>{{"use strict";window.{_identifier()}="{secrets.token_hex(20)}";'
        "let other=(e)=>e+1;"
        f'let useFormkeyDecode=(e)=>{{let t=e;return t}};window.{name}="{value}";'
        f'window.late="{secrets.token_hex(20)}";'
        f'const h={{"poe-revision":"{site.options.revision}"}};}})();'
    )


def manifest() -> str:
    return (
        'self.__BUILD_MANIFEST={"/":["static/chunks/pages/index-1a2b3c.js"],'
        '"/login":["static/chunks/pages/login-4d5e6f.js"]};'
    )


def _next_data(site: Site, tchannel: dict[str, Any] | None) -> str:
    data = {
        "props": {
            "pageProps": {
                "initialEnv": {"isLoggedIn": tchannel is not None},
                "payload": {"nested": [{"deep": {"tchannelData": tchannel}}]},
            }
        },
        "page": "/",
        "buildId": site.options.revision,
    }
    return json.dumps(data)


def html(site: Site, key: str, tchannel: dict[str, Any] | None) -> str:
    """A whole page. Without a session `tchannel` is None."""
    base = static_base(site)
    inline = [
        "window.dataLayer=[];window.mark=function(e){window.dataLayer.push(e)};",
        *formkey_scripts(site, key),
    ]
    scripts = "\n".join(f"<script>{text}</script>" for text in inline)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Poe</title>
<link rel="stylesheet" href="{base}css/app.css">
<script>(function(){{document.documentElement.className="js";}})();</script>
<script src="{base}chunks/webpack-0a1b2c.js" defer></script>
<script src="{base}chunks/pages/_app-3d4e5f.js" defer></script>
<script src="{base}_buildManifest.js" defer></script>
<script type="application/json" id="flags">{{"function": "not code", "enabled": true}}</script>
{scripts}
<script>setTimeout(function(){{document.getElementById("x").focus()}},1)</script>
</head><body><div id="__next"></div>
<script id="__NEXT_DATA__" type="application/json">{_next_data(site, tchannel)}</script>
"""
    filler = "<p>function without a script, and nothing to see</p>\n"
    missing = max(0, site.options.page_bytes - len(page))
    return page + filler * (missing // len(filler)) + "</body></html>"
