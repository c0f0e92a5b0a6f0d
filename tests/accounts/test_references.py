"""Keys that are named: where they are found, what is refused, and that they are read when they are used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from poe_gateway.accounts.references import OWN, References, Unresolved, files_from, resolved
from poe_gateway.telemetry.redaction import redact_text
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import Vault, VaultError, new_key
from tests.unit.builders import StepClock, account


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def test_a_document_without_a_reference_stays_as_it_is() -> None:
    document = {"api_key": "sk-1", "base_url": "https://a.test"}
    assert resolved(document, {}.get, no_file) == document


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_variables_and_files_are_read_without_the_lines_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "key").write_bytes(b"sk-in-a-file" + end.encode())
    found = resolved({"api_key_file": "key", "preset": "openai"}, {}.get, files_from(tmp_path))
    assert found == {"api_key": "sk-in-a-file", "preset": "openai"}
    absolute = resolved({"api_key_file": str(tmp_path / "key")}, {}.get, files_from(None))
    assert absolute == {"api_key": "sk-in-a-file"}
    assert resolved({"api_key_env": "A_KEY"}, {"A_KEY": "sk-of-env" + end}.get, no_file) == {"api_key": "sk-of-env"}


def test_what_was_read_never_reaches_a_log_line() -> None:
    resolved({"api_key_env": "A_KEY"}, {"A_KEY": "horse battery staple"}.get, no_file)
    assert "battery" not in redact_text("refused: horse battery staple")


@pytest.mark.parametrize(
    ("document", "name", "told"),
    [
        ({"api_key_env": "A_KEY"}, "A_KEY", "variable A_KEY is not set"),
        ({"api_key_env": "EMPTY"}, "EMPTY", "variable EMPTY is not set"),
        ({"api_key_env": "BLANK"}, "BLANK", "variable BLANK is not set"),
        ({"api_key_file": "nowhere"}, "nowhere", "file nowhere cannot be read: No such file"),
        ({"api_key_file": "empty"}, "empty", "file empty is empty"),
        ({"api_key_file": "latin"}, "latin", "file latin cannot be read: it is not UTF-8"),
        ({"api_key_file": "."}, ".", "file . cannot be read: it is not an ordinary file"),
        ({"api_key_file": "huge"}, "huge", "file huge cannot be read: it is larger than 65536 bytes"),
        ({"api_key_file": "a\0b"}, "a\0b", "cannot be read"),
        ({"api_key_env": "A", "api_key_file": "empty"}, "", "either"),
        ({"api_key_env": 5}, "", "either"),
        ({"api_key_env": ""}, "", "either"),
        *(({"api_key_env": own}, own, "secret of the gateway itself") for own in sorted(OWN)),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_named(tmp_path: Path, document: dict[str, Any], name: str, told: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_bytes(b"x" * 70_000)
    variables = {"EMPTY": "", "BLANK": " \n", **dict.fromkeys(OWN, "canary-own-secret")}
    with pytest.raises(Unresolved) as unresolved:
        resolved(document, variables.get, files_from(tmp_path))
    assert unresolved.value.name == name and told in str(unresolved.value)
    assert "canary" not in str(unresolved.value)


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_does_not_hold_the_gateway_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unresolved, match="not an ordinary file"):
        resolved({"api_key_file": "pipe"}, {}.get, files_from(tmp_path))


def test_a_home_that_nobody_has_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Unresolved, match="cannot be read: nobody has such a home"):
        resolved({"api_key_file": "~no-such-user/key"}, {}.get, files_from(tmp_path))


class Store:
    """Credentials that name their key."""

    def __init__(self, vault: Vault, document: dict[str, Any]) -> None:
        self._sealed = vault.seal(document)

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        return self._sealed

    async def credentials_of(self, versions: Any) -> dict[Any, bytes]:
        return dict.fromkeys(versions, self._sealed)


async def test_the_key_chain_reads_a_named_key_when_it_opens_and_soon_again(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-first\n")
    vault, clock = Vault((new_key(),)), StepClock()
    store = Store(vault, {"base_url": "https://a.test", "api_key_file": "key"})
    chain = Keychain(store, vault, clock, References({}.get, files_from(tmp_path)).resolved)
    one = account("2")
    await chain.prefetch([one])
    ref = chain.at_hand(one)
    assert ref is not None and ref.credentials == {"base_url": "https://a.test", "api_key": "sk-first"}
    (tmp_path / "key").write_text("sk-second")
    clock.step(6)
    ref = chain.at_hand(one)
    assert ref is not None and ref.credentials["api_key"] == "sk-second"
    (tmp_path / "key").unlink()
    clock.step(6)
    with pytest.raises(VaultError, match="file key cannot be read"):
        chain.at_hand(one)
