"""``/docs``: the interactive description of the API, with all of its parts served from here.

The page works in a closed network and tells no third party who looks at it.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs/assets"
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ICON = "data:,"


def add_docs(app: FastAPI) -> None:
    """Serve ``/docs`` over ``/openapi.json``."""
    app.mount(_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")

    async def page() -> Response:
        answer = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="poe_gateway",
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=_ICON,
        )
        answer.headers["content-security-policy"] = _POLICY
        return answer

    app.add_api_route("/docs", page, methods=["GET"], include_in_schema=False)
