"""Scripts, lock files, image, compose file and documents: that they say the same thing, and what they promise."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from poe_gateway.settings import VARIABLES, SettingsError, load_settings

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


settings_docs = script("settings_docs")
new_env_file = script("new_env_file")


# --- settings in documents -------------------------------------------------------------------------------------------


def test_the_example_file_is_made_from_the_table() -> None:
    """If this fails: python scripts/settings_docs.py"""
    assert (ROOT / ".env.gateway.example").read_text() == settings_docs.example()


def test_the_readme_holds_the_table_of_settings() -> None:
    """If this fails: python scripts/settings_docs.py"""
    text = (ROOT / "README.md").read_text()
    assert text == settings_docs.readme(text)
    assert all(f"`{variable.name}`" in text for variable in VARIABLES)


def test_the_example_file_is_refused_as_long_as_its_placeholders_stand() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"GATEWAY_CONFIG_FILE": str(ROOT / ".env.gateway.example")}, ROOT)
    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    for name in ("FERNET_KEY", "ADMIN_API_KEY", "SERVICE_API_KEYS_BOOTSTRAP"):
        assert f"{name} " in told


def test_every_line_of_the_example_file_is_valid_once_it_is_uncommented(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[A-Z_]+=)", "", settings_docs.example(), flags=re.M)
    names = re.findall(r"^([A-Z_]+)=", text, flags=re.M)
    assert sorted(names) == sorted(variable.name for variable in VARIABLES)
    (tmp_path / ".env.gateway").write_text(text)
    environ = {
        "FERNET_KEY": "",
        "ADMIN_API_KEY": "",
        "SERVICE_API_KEYS_BOOTSTRAP": "",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, tmp_path)
    assert [problem.split()[0] for problem in caught.value.problems] == ["FERNET_KEY", "ADMIN_API_KEY"]


# --- the file with fresh keys ----------------------------------------------------------------------------------------


def test_a_fresh_configuration_is_valid_private_and_different_every_time(tmp_path: Path) -> None:
    before = os.umask(0)
    for name in ("one", "two"):
        assert new_env_file.create(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    os.umask(before)
    one, two = (load_settings({"GATEWAY_CONFIG_FILE": name}, tmp_path) for name in ("one", "two"))
    assert one.serve.demo_pool is True
    assert one.vault.keys != two.vault.keys
    assert one.auth.admin_key != two.auth.admin_key
    assert one.auth.bootstrap_keys != two.auth.bootstrap_keys
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_an_existing_configuration_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / ".env.gateway"
    path.write_text("mine")
    assert not new_env_file.create(path)
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == [".env.gateway"]


def test_of_many_who_write_it_at_once_one_wins_and_its_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / ".env.gateway"
    command = [sys.executable, str(ROOT / "scripts" / "new_env_file.py"), str(path)]
    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(6)))
    assert sum("Wrote" in run.stderr for run in runs) == 1
    assert all(run.returncode == 0 and not run.stdout for run in runs)
    secrets = [line.split("=", 1)[1] for line in path.read_text().splitlines() if re.match(r"[A-Z_]+=\S{20}", line)]
    assert len(secrets) == 3
    assert not any(secret in run.stderr for secret in secrets for run in runs)
    load_settings({}, tmp_path)


# --- shell -----------------------------------------------------------------------------------------------------------


def bash(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". scripts/lib.sh; {code}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environ},
        capture_output=True,
        text=True,
    )


def fake_python(folder: Path, name: str, version: tuple[int, int]) -> Path:
    """Answers as a Python of that version would answer the question of lib.sh."""
    path = folder / name
    old = int(version < (3, 11))
    path.write_text(f'#!/bin/sh\ncase "$2" in *sys.executable*) echo "{path}";; *) exit {old};; esac\n')
    path.chmod(0o755)
    return path


def test_the_first_python_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", (3, 9))
    newer = fake_python(tmp_path, "python3.12", (3, 12))
    fake_python(tmp_path, "python3.11", (3, 11))
    assert bash("find_python", PATH=f"{tmp_path}:/usr/bin:/bin").stdout.strip() == str(newer)


def test_a_named_python_that_is_too_old_is_an_error(tmp_path: Path) -> None:
    old = fake_python(tmp_path, "old", (3, 10))
    run = bash("find_python", PYTHON=str(old))
    assert run.returncode == 1
    assert f"PYTHON={old}" in run.stderr


def test_no_python_at_all_is_told(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        fake_python(tmp_path, name, (3, 9))
    run = bash("find_python", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert run.returncode == 1
    assert "Python 3.11 or newer" in run.stderr


def test_missing_libraries_of_mongod_are_named(tmp_path: Path) -> None:
    mongod = tmp_path / "mongod"
    mongod.write_text("#!/bin/sh\necho 'mongod: error while loading shared libraries: libcurl.so.4' >&2\nexit 127\n")
    mongod.chmod(0o755)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {mongod}\n")
    python.chmod(0o755)
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    run = bash(f"ensure_mongod_runs {python}", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert "apt-get install libcurl4 libssl3 liblzma5" in run.stderr


def test_an_unknown_kind_is_refused_before_anything_is_installed() -> None:
    run = subprocess.run(["./scripts/test", "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "no such kind: nonsense" in run.stderr


def test_scripts_may_be_executed_and_end_on_the_first_error() -> None:
    for name in ("scripts/serve", "scripts/test", "scripts/check", "scripts/lock", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name
        assert "set -euo pipefail" in (ROOT / name).read_text(), name


# --- locks -----------------------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)", text, flags=re.M))


def test_one_environment_serves_both_locks() -> None:
    runtime, dev = pins("runtime.lock"), pins("dev.lock")
    assert runtime
    assert runtime.items() <= dev.items()


def test_every_pinned_package_has_hashes_and_no_lock_names_an_index() -> None:
    for name in ("runtime.lock", "dev.lock"):
        text = (ROOT / "requirements" / name).read_text()
        assert "://" not in text
        for block in re.split(r"\n(?=[a-z0-9])", text):
            assert "--hash=sha256:" in block, block[:80]


def test_what_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["embedded"]
    names = {re.split(r"[<>=!;\[ ]", line)[0].lower() for line in wanted}
    assert names <= set(pins("runtime.lock"))
    developers = {re.split(r"[<>=!;\[ ]", line)[0].lower() for line in project["dependency-groups"]["dev"]}
    assert developers <= set(pins("dev.lock"))


# --- image and compose -----------------------------------------------------------------------------------------------


def stages() -> list[list[str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parts: list[list[str]] = []
    for line in lines:
        if line.startswith("FROM "):
            parts.append([])
        parts[-1].append(line)
    return parts


def test_the_image_is_made_in_two_stages_from_the_lock() -> None:
    builder, final = stages()
    assert any("--require-hashes" in line and "runtime.lock" in line for line in builder)
    assert not any("pip install" in line for line in final)


def test_the_image_is_not_root_and_checks_its_own_health() -> None:
    _, final = stages()
    user = next(line for line in final if line.startswith("USER "))
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)
    health = next(line for line in final if line.startswith("HEALTHCHECK "))
    assert health.endswith('CMD ["poe-gateway", "healthcheck"]')
    assert "EXPOSE 8000" in final
    assert any("GATEWAY_HOST=0.0.0.0" in line for line in final)


def test_no_secret_can_get_into_the_image() -> None:
    names = {variable.name for variable in VARIABLES if variable.secret}
    for line in [line for stage in stages() for line in stage]:
        assert not names & set(re.findall(r"[A-Z_]{6,}", line.split("#")[0]))
        copied = re.match(r"(?:COPY|ADD) (?!--from)(\S+)", line)
        assert copied is None or copied[1] in ("requirements/runtime.lock", "scripts/lib.sh", "poe_gateway")
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert [line for line in ignored if line.startswith("!")] == [
        "!poe_gateway",
        "!requirements/runtime.lock",
        "!scripts/lib.sh",
    ]


def test_the_compose_file_holds_together() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    gateway, mongo = compose["services"]["gateway"], compose["services"]["mongo"]
    known = {variable.name for variable in VARIABLES}
    assert set(gateway["environment"]) <= known
    assert not set(gateway["environment"]) & {"FERNET_KEY", "ADMIN_API_KEY", "SERVICE_API_KEYS_BOOTSTRAP"}
    name = re.search(r"replicaSet=(\w+)", gateway["environment"]["MONGODB_URI"])
    assert name is not None
    assert mongo["command"][:2] == ["--replSet", name[1]]
    assert f'_id: "{name[1]}"' in mongo["healthcheck"]["test"][-1]
    assert gateway["depends_on"]["mongo"]["condition"] == "service_healthy"
    assert gateway["read_only"] is True
    assert gateway["ports"] == ["127.0.0.1:8000:8000"]
    assert "ports" not in mongo
    volumes = {entry.split(":")[0] for service in (gateway, mongo) for entry in service["volumes"]}
    assert volumes == set(compose["volumes"])
    assert {net for service in (gateway, mongo) for net in service["networks"]} == set(compose["networks"])
    environ = {key: str(value) for key, value in gateway["environment"].items()}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, ROOT / "deploy")
    assert [problem.split()[0] for problem in caught.value.problems] == ["FERNET_KEY", "ADMIN_API_KEY"]


# --- documents -------------------------------------------------------------------------------------------------------

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path)
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.M)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}, target


def test_every_decision_is_listed_once_and_names_what_was_rejected() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in sorted(folder.glob("0*.md")):
        text = page.read_text()
        title = re.match(r"# (\d{4}): (.+)\n", text)
        assert title is not None, page.name
        assert title[1] == page.name[:4]
        assert f"[{title[1]}]({page.name}) | {title[2]} |" in index
        for heading in ("## Decision", "## Why", "## What it costs", "## Rejected"):
            assert heading in text, f"{page.name}: {heading}"
