"""``poe-gateway serve`` and ``poe-gateway healthcheck``."""

from __future__ import annotations

import sys

import click
import httpx

from poe_gateway.cli.ground import fail, local_url, settings
from poe_gateway.settings import environment

_DRAIN = 30
"""Seconds that running answers have at the end."""
_KEEP_ALIVE = 75
"""Seconds; longer than the pauses of common clients and proxies, so that they do not meet a closing connection."""


@click.command()
@click.option("--host", help="Address to listen on (GATEWAY_HOST).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on (GATEWAY_PORT).")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes (GATEWAY_WORKERS).")
@click.option("--demo", is_flag=True, help="Serve from built-in mock accounts as long as the pool is empty.")
def serve(host: str | None, port: int | None, workers: int | None, *, demo: bool) -> None:
    """Serve the API. Options go before the settings."""
    given = {
        "GATEWAY_HOST": host,
        "GATEWAY_PORT": port,
        "GATEWAY_WORKERS": workers,
        "GATEWAY_DEMO_POOL": "true" if demo else None,
    }
    # Worker processes read their settings from the environment: that is how the options reach them.
    environment().update({name: str(value) for name, value in given.items() if value is not None})
    options = settings()

    import uvicorn

    from poe_gateway.telemetry import logs

    logs.configure(options.log.format, options.log.level)
    uvicorn.run(
        "poe_gateway.app:app",
        host=options.serve.host,
        port=options.serve.port,
        workers=options.serve.workers,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_DRAIN,
    )


@click.command()
@click.option("--url", metavar="URL", help="Address of the gateway; default: as in the settings.")
@click.option("--ready", is_flag=True, help="Ask whether it can serve, not only whether it lives.")
def healthcheck(url: str | None, *, ready: bool) -> None:
    """Exit with 0 if the gateway answers, else with 1."""
    if url is None:
        options = settings()
        url = local_url(options.serve.host, options.serve.port)
    address = url.rstrip("/") + ("/readyz" if ready else "/healthz")
    try:
        answer = httpx.get(address, timeout=3.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"{address} does not answer ({type(error).__name__}).")
    if answer.status_code != 200:
        fail(f"{address} answers with HTTP {answer.status_code}.")
    click.echo("ok")
