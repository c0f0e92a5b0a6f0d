"""The program inside the sandbox: evaluate page scripts in QuickJS. Run as a file, never imported by the package.

Reads one JSON document from stdin: ``{"prelude", "scripts", "calls", "memory", "seconds"}``; writes one:
``{"values": [text, ...]}``, the results of those calls that gave text, or ``{"error": kind}``. The engine has
no host functions; the process gives up what it does not need before the first foreign byte is evaluated.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

_ADDRESS_SPACE = 1 << 30
_LONGEST = 4096


def confine(seconds: int) -> None:
    """Bound what this process may use. Limits that the platform does not know are left out."""
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_AS": _ADDRESS_SPACE,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 3,
        "RLIMIT_NPROC": 0,
    }
    for name, value in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))


def evaluate(asked: dict[str, Any], quickjs: Any) -> list[str]:
    """Run everything in one throw-away context.

    A page script that needs more of a browser than there is throws; the others still count.
    """
    context = quickjs.Context()
    context.set_memory_limit(asked["memory"])
    context.set_max_stack_size(1 << 20)
    context.set_time_limit(asked["seconds"])
    context.eval(asked["prelude"])
    for script in asked["scripts"]:
        with contextlib.suppress(quickjs.JSException):
            context.eval(script)
    values = []
    for call in asked["calls"]:
        with contextlib.suppress(quickjs.JSException, TypeError):
            value = context.eval(call)
            if isinstance(value, str):
                values.append(value[:_LONGEST])
    return values


def main() -> None:
    """One evaluation, then the process ends."""
    try:
        import quickjs
    except ImportError:
        sys.stdout.write('{"error": "the quickjs module is not installed"}')
        return
    asked = json.loads(sys.stdin.buffer.read())
    confine(int(asked["seconds"]) + 2)
    sys.stdout.write(json.dumps({"values": evaluate(asked, quickjs)}))


if __name__ == "__main__":
    main()
