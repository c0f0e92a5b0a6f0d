"""The documents for operators hold against the code: metrics, error codes, settings, states, commands, links."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from poe_gateway.cli import main
from poe_gateway.pool.account import Cause, State
from poe_gateway.settings import VARIABLES
from poe_gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SOURCES = "".join(path.read_text() for path in sorted((ROOT / "poe_gateway").rglob("*.py")))


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_table_of_metrics_is_what_is_exposed() -> None:
    written = {
        row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])))
        for row in rows((ROOT / "docs" / "metrics.md").read_text())
        if row[0].startswith("`")
    }
    collectors = set(Metrics(known_model=lambda name: True)._registry._names_to_collectors.values())
    exposed = {
        each._name + ("_total" if each._type == "counter" else ""): (each._type, each._labelnames)
        for each in collectors
    }
    assert written == exposed


def test_metrics_in_examples_exist() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    told = {row[0].strip("`") for row in rows(text)}
    assert set(re.findall(r"poe_gateway_\w+", text)) <= told


def test_every_state_and_cause_of_an_account_is_explained() -> None:
    table = [row for row in rows(OPERATIONS) if len(row) == 4]
    states = {word for row in table for word in re.findall(r"`(\w+)`", row[0])}
    causes = {word for row in table for word in re.findall(r"`(\w+)`", row[1])}
    assert states == {state.value for state in State}
    assert causes == {cause.value for cause in Cause}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_settings_and_codes_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    known = {variable.name for variable in VARIABLES} | {"GATEWAY_CONFIG_FILE", "SERVICE_KEY", "ADMIN_KEY"}
    groups = (
        r"(?:MONGODB|GATEWAY|FERNET|ADMIN|SERVICE|POE|DAILY|MAX|GLOBAL|DEPLETED|REFRESH|COOLDOWN|PREWARM|SESSION|GRANT)"
    )
    assert set(re.findall(rf"\b{groups}_[A-Z_]+\b", text)) <= known
    for code in re.findall(r"\b[45]\d\d `([a-z_]+)`", text):
        assert f'"{code}"' in SOURCES, code


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            headings = [
                re.sub(r"[^\w\- ]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
                for line in found.read_text().splitlines()
                if line.startswith("#")
            ]
            assert anchor in headings, target


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    for words in re.findall(r"poe-gateway((?: [a-z-]+)+)", page.read_text()):
        command: click.Command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands or command is main, f"poe-gateway{words}"
            if word not in command.commands:
                break
            command = command.commands[word]
