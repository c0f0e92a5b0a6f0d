"""What a child of the sandbox gets to hold, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poe_gateway.upstreams.poe_web.sandbox import Sandbox

_HOLDS = """
import asyncio, json, os, socket, sys
from pathlib import Path
import uvloop
from poe_gateway.upstreams.poe_web.sandbox import Sandbox

async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    own = socket.create_server(("127.0.0.1", 0))
    own.set_inheritable(True)
    for each in server.sockets:
        os.set_inheritable(each.fileno(), True)
    sandbox = Sandbox(at_once=1, timeout=10.0, answer_bytes=65536)
    print(json.dumps(await sandbox.run(Path(sys.argv[1]), {})))

uvloop.run(main())
"""

_TELLS = """
import json, os, stat, sys
sys.stdin.buffer.read()
held = []
for fd in range(64):
    try:
        held.append([fd, stat.S_ISSOCK(os.fstat(fd).st_mode)])
    except OSError:
        pass
sys.stdout.write(json.dumps({"held": held}))
"""


async def test_a_child_holds_no_listening_socket_under_uvloop(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    holds, tells = tmp_path / "holds.py", tmp_path / "tells.py"
    holds.write_text(_HOLDS)
    tells.write_text(_TELLS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(holds), str(tells)], env=environment, capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr.decode()
    held = json.loads(done.stdout)["held"]
    assert [fd for fd, _ in held] == [0, 1, 2] and not any(is_socket for _, is_socket in held), held


async def test_a_child_is_gone_when_nobody_waits_any_more(tmp_path: Path) -> None:
    program, marker = tmp_path / "sleeps.py", tmp_path / "pid"
    program.write_text(f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    task = asyncio.create_task(
        Sandbox(at_once=1, timeout=30.0, answer_bytes=1 << 20).run(program, {"much": "x" * 2_000_000})
    )
    while not marker.exists() or not marker.read_text():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
