"""Write a configuration file with fresh random keys, readable by its owner only; an existing file is left alone.

Usage: python scripts/new_env_file.py FILE
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

TEMPLATE = """\
# Settings of this gateway. It holds secrets: keep it to yourself and keep a copy in a safe place.
# Every variable that may stand here is listed in .env.gateway.example.

# Seals the credentials in the database. Without this key they are lost.
FERNET_KEY={fernet}

# Opens /admin/*.
ADMIN_API_KEY=adm_{admin}

# Opens /v1/*: give it to callers.
SERVICE_API_KEYS_BOOTSTRAP=svc_{service}

# Answers come from built-in mock accounts until the pool has accounts.
GATEWAY_DEMO_POOL=true
"""


def create(path: Path) -> bool:
    """False if the file exists. It appears whole or not at all, and never with wider permissions."""
    content = TEMPLATE.format(
        fernet=base64.urlsafe_b64encode(os.urandom(32)).decode(),
        admin=secrets.token_urlsafe(32),
        service=secrets.token_urlsafe(32),
    )
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # refuses to replace, unlike a rename
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if create(target):
        print(f"Wrote {target} with fresh keys (mode 600).", file=sys.stderr)
