"""Throw-away child processes for what must not run here: foreign scripts, and pages that take long to parse.

A child gets this interpreter in isolated mode, an empty environment, no file descriptors but its three pipes,
one document on stdin, and a wall time-out; it is killed when that passes or when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
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
        child = _Child(program, orjson.dumps(document), self._answer_bytes)
        async with self._turn:
            thread = asyncio.get_running_loop().run_in_executor(None, child.converse)
            # What a killed child's thread raises is of no interest any more.
            thread.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                async with asyncio.timeout(self._timeout):
                    raw = await asyncio.shield(thread)
            except TimeoutError:
                raise SandboxTimeout("the sandbox took too long") from None
            finally:
                child.kill()
                # A killed child's thread ends at once; its turn is over only then.
                await asyncio.shield(asyncio.wait([thread]))
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise SandboxFailed(f"the sandbox ended without an answer (status {child.status})") from None
        if not isinstance(answer, dict):
            raise SandboxFailed("the sandbox answered with something else")
        if "error" in answer:
            raise SandboxFailed(str(answer["error"])[:200])
        return answer


class _Child:
    """One child: ``converse`` in a thread, ``kill`` from anywhere at any time.

    Not by asyncio: under uvloop a child inherits the server's listening sockets in spite of ``close_fds``, and
    foreign script must not run beside them.
    """

    def __init__(self, program: Path, document: bytes, answer_bytes: int) -> None:
        self._command = [sys.executable, "-I", str(program)]
        self._document = document
        self._answer_bytes = answer_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self.status: int | None = None

    def kill(self) -> None:
        """End the child, or keep it from being started."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def converse(self) -> bytes:
        """Start it, write everything, read until the end, bury it. Blocks; raises SandboxFailed."""
        with self._lock:
            if self._killed:
                raise SandboxFailed("nobody waits for the sandbox any more")
            process = self._process = self._start()
        try:
            return self._exchange(process)
        finally:
            with contextlib.suppress(BrokenPipeError):
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
            process.kill()
            self.status = process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd=_HERE.anchor,
                bufsize=0,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxFailed(f"the sandbox did not start: {type(error).__name__}") from None

    def _exchange(self, process: subprocess.Popen[bytes]) -> bytes:
        if process.stdin is None or process.stdout is None:
            raise SandboxFailed("the sandbox has no pipes")
        # The child reads all of its input before it writes: one direction after the other cannot deadlock.
        with contextlib.suppress(BrokenPipeError):
            rest = memoryview(self._document)
            while rest:
                rest = rest[process.stdin.write(rest) or 0 :]
            process.stdin.close()
        pieces, size = [], 0
        while piece := process.stdout.read(65536):
            size += len(piece)
            if size > self._answer_bytes:
                raise SandboxFailed("the sandbox answered with too much")
            pieces.append(piece)
        self.status = process.wait()
        return b"".join(pieces)
