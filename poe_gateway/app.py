"""``uvicorn poe_gateway.app:app``: the application of one process, from the settings of its environment."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from poe_gateway.settings import Settings, SettingsError, environment, load_settings
from poe_gateway.telemetry.processes import configure_multiprocess


def _end(why: object) -> NoReturn:
    """One clear message, and the end of the process."""
    print(why, file=sys.stderr)
    # uvicorn's word for a worker that will never start: its supervisor ends instead of trying for ever.
    raise SystemExit(3) from None


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        _end(error)


def _share_metrics(directory: Path) -> Path:
    try:
        configure_multiprocess(directory, environment())
    except OSError as error:
        _end(f"The gateway cannot start. {directory} in GATEWAY_DATA_DIR cannot be written ({error.strerror}).")
    return directory


settings = _settings()
_metrics = _share_metrics(settings.mongo.data_dir / "metrics")  # before anything imports prometheus_client

from poe_gateway.api.second_door import second_door  # noqa: E402
from poe_gateway.bootstrap import Gateway, front  # noqa: E402
from poe_gateway.telemetry import logs  # noqa: E402

logs.configure(settings.log.format, settings.log.level)


async def _end_with_supervisor() -> None:
    """A supervisor that was killed stops no workers, and they would keep the port from the next start."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return
    while supervisor.is_alive():  # noqa: ASYNC110 - another process
        await asyncio.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def lifespan(application: Any) -> AsyncIterator[None]:
    """Start the rooms before the first request, stop them after the last."""
    gateway = Gateway(settings, _metrics)
    application.state.gateway = await gateway.open()
    app.serve(gateway.hot_routes, gateway.telemetry)
    # What lives as long as the process is not looked at again by every full collection (milliseconds each).
    gc.collect()
    gc.freeze()
    watch = asyncio.create_task(_end_with_supervisor())
    try:
        async with second_door(app, settings.serve.admin_host, settings.serve.admin_port):
            yield
    finally:
        watch.cancel()
        await gateway.close()


app = front(lifespan, settings)
