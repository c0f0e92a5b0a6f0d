"""Throw-away child processes for what must not run here: foreign scripts, and pages that take long to parse.

A child gets this interpreter in isolated mode, an empty environment, no file descriptors but its three pipes,
one document on stdin, and a wall time-out; it is killed when that passes or when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import orjson

_HERE = Path(__file__).parent
ENGINE = _HERE / "engine.py"
PAGE = _HERE / "page.py"


class SandboxFailed(Exception):
    """The child gave no usable answer; the message names the kind of failure only."""


class SandboxTimeout(SandboxFailed):
    """The child was killed because it took too long."""


class Sandbox:
    """Runs children, at most ``at_once`` at a time over the whole adapter."""

    def __init__(self, *, at_once: int, timeout: float, answer_bytes: int) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._timeout = timeout
        self._answer_bytes = answer_bytes

    async def run(self, program: Path, document: dict[str, Any]) -> dict[str, Any]:
        """Feed the document, read the answer. Raises SandboxFailed."""
        async with self._turn:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                cwd=_HERE.anchor,
                close_fds=True,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(self._timeout):
                    raw = await self._converse(child, orjson.dumps(document))
            except TimeoutError:
                raise SandboxTimeout("the sandbox took too long") from None
            finally:
                await asyncio.shield(_bury(child))
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise SandboxFailed(f"the sandbox ended without an answer (status {child.returncode})") from None
        if not isinstance(answer, dict):
            raise SandboxFailed("the sandbox answered with something else")
        if "error" in answer:
            raise SandboxFailed(str(answer["error"])[:200])
        return answer

    async def _converse(self, child: asyncio.subprocess.Process, document: bytes) -> bytes:
        """Write everything and read until the end, with a bound on what is read."""
        if child.stdin is None or child.stdout is None:
            raise SandboxFailed("the sandbox has no pipes")
        # The child reads all of its input before it writes: one direction after the other cannot deadlock.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(document)
            await child.stdin.drain()
        child.stdin.close()
        pieces, size = [], 0
        while piece := await child.stdout.read(65536):
            size += len(piece)
            if size > self._answer_bytes:
                raise SandboxFailed("the sandbox answered with too much")
            pieces.append(piece)
        await child.wait()
        return b"".join(pieces)


async def _bury(child: asyncio.subprocess.Process) -> None:
    """Make sure that the child is gone."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
