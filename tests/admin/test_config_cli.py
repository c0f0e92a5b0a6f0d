"""``poe-gateway config``: the routing file is checked, shown and compared without a running gateway."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from poe_gateway.cli.config import config
from poe_gateway.routing.parse import parse
from poe_gateway.settings.routes import read_routes
from tests.accounts.support import ADMIN_KEY
from tests.unit.routes import LADDER

ROOT = Path(__file__).parents[2]


def run(*args: str, code: int = 0, **env: str) -> Result:
    quiet: dict[str, str | None] = {"GATEWAY_CONFIG_FILE": None, "GATEWAY_ROUTES_FILE": None, "OPENROUTER_KEY": None}
    result = CliRunner().invoke(config, list(args), env=quiet | env)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.toml").write_text(LADDER)
    return tmp_path


def test_check_says_what_there_is(folder: Path) -> None:
    told = run("check", OPENROUTER_KEY="a-key")
    assert told.stdout == (
        "gateway.toml: fit for use: 1 file, 3 backends, 4 tiers, 4 aliases, 0 profiles, 0 clients, 0 fallbacks\n"
    )
    assert told.stderr == ""


def test_check_warns_of_keys_that_are_missing_by_name(folder: Path) -> None:
    (folder / "gateway.toml").write_text(
        LADDER + '[backends.f]\napi_key_file = "secrets/f"\n[gateway]\nlog_level = "x"'
    )
    assert run("check").stderr.splitlines() == [
        "note: gateway.log_level: set by LOG_LEVEL, not here",
        "warning: OPENROUTER_KEY should hold a key and does not",
        "warning: f should hold a key and does not",
    ]
    (folder / "secrets").mkdir()
    (folder / "secrets" / "f").write_text("the-key\n")
    assert "warning: f" not in run("check").stderr
    (folder / "gateway.toml").write_text(LADDER + '[backends.f]\napi_key_file = "~no-such-user/f"')
    assert "warning: f should hold a key and does not" in run("check").stderr


def test_the_file_of_the_settings_is_the_usual_one(folder: Path) -> None:
    (folder / "routes").mkdir()
    (folder / "gateway.toml").rename(folder / "routes" / "mine.toml")
    settings = {"FERNET_KEY": "x", "ADMIN_API_KEY": "y", "GATEWAY_ROUTES_FILE": "routes/mine.toml"}
    assert "gateway.toml: cannot be read" in run("check", code=1, **settings).stderr  # no usable settings
    usable = {"FERNET_KEY": Fernet.generate_key().decode(), "ADMIN_API_KEY": ADMIN_KEY}
    assert "mine.toml: fit for use" in run("check", **{**settings, **usable}).stdout


def test_the_file_may_refer_to_backends_of_the_settings(folder: Path) -> None:
    (folder / "gateway.toml").write_text('[[tiers]]\nname = "t"\nbackend = "openai"\nmodel = "m"\n')
    assert "unknown backend 'openai'" in run("check", code=1).stderr
    (folder / ".env.gateway").write_text(
        f"FERNET_KEY={Fernet.generate_key().decode()}\nADMIN_API_KEY={ADMIN_KEY}\n"
        "DEFAULT_PROVIDER=openai\nOPENAI_API_KEY=sk-a-key-of-the-file-123\n"
    )
    told = run("check")
    assert "1 backend, 1 tier" in told.stdout and told.stderr == ""


BROKEN = {
    "tier": ('[[tiers]]\nname = "t"\nbackend = "nearr"\nmodel = "m"', "tiers[0].backend: unknown backend 'nearr'"),
    "alias": ('[aliases]\n"hint:x" = "local:fsat"', "aliases.\"hint:x\": unknown tier 'local:fsat'"),
    "classifier": ('[profiles.p]\nclassifier = "nowhere"', "profiles.p.classifier: unknown tier 'nowhere'"),
    "client": ('[[clients]]\nkey_env = "C"\nprofile = "p"', "clients[0].profile: unknown profile 'p'"),
    "secret": (
        '[backends.b]\napi_key = "sk-0123456789abcdef0123"',
        "backends.b.api_key: a secret must not stand in this file",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_five_broken_files_give_five_clear_messages(folder: Path, name: str) -> None:
    text, expected = BROKEN[name]
    (folder / "broken.toml").write_text(text)
    told = run("check", "broken.toml", code=1)
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"broken.toml: {expected}")
    assert told.stdout == "" and "sk-0123" not in told.output
    assert run("show", "broken.toml", code=1).stdout == ""


def test_a_file_that_is_not_toml_is_told_once_with_its_line(folder: Path) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "a.toml").write_text("x = ]")
    assert run("check", code=1).stderr == "conf.d/a.toml: is not TOML, line 1, column 5: invalid value\n"


def test_a_problem_is_told_where_it_stands(folder: Path) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "a.toml").write_text(
        '[[tiers]]\nname = "new"\nbackend = "near"\nmodle = "m"\n'
        '[[tiers]]\nname = "cloud:expert"\nbackend = "nowhere"\nmodel = "m"\n[backends.near]\nlabels = 1\n'
    )
    (folder / "profiles").mkdir()
    (folder / "profiles" / "agent.toml").write_text('mode = "classify"\n')
    (folder / "gateway.toml").write_text(LADDER + '[gateway]\npublic_profile = "nobody"\n')
    assert sorted(run("check", code=1).stderr.splitlines()) == [
        "conf.d/a.toml: backends.near.labels: expected `array`, got `int`",
        "conf.d/a.toml: tiers[0].model: is missing",
        "conf.d/a.toml: tiers[0].modle: unknown key; did you mean 'model'?",
        "conf.d/a.toml: tiers[1].backend: unknown backend 'nowhere'",
        "gateway.toml: gateway.public_profile: unknown profile 'nobody'",
        "profiles/agent.toml: profiles.agent.classifier: is missing: mode 'classify' asks this tier",
    ]


def test_show_is_one_document_that_means_the_same(folder: Path) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "a.toml").write_text('[[tiers]]\nname = "cloud:expert"\nbackend = "far"\nmodel = "other"\n')
    (folder / "profiles").mkdir()
    prompt = 'Be "brief".\\nAlways.'
    (folder / "profiles" / "auto.toml").write_text(f'mode = "reply"\nsystem_prompt = """{prompt}"""\n')
    shown = run("show", OPENROUTER_KEY="the-secret").stdout
    assert parse(tomllib.loads(shown)) == parse(read_routes(folder / "gateway.toml").document)
    assert "the-secret" not in shown and 'api_key_env = "OPENROUTER_KEY"' in shown


def test_diff_tells_what_changes(folder: Path) -> None:
    (folder / "new.toml").write_text(LADDER.replace('"Medium"', '"Large"'))
    assert run("diff", "gateway.toml", "new.toml").stdout == '~ tiers."cloud:standard".model: Medium -> Large\n'
    assert run("diff", "new.toml").stdout == '~ tiers."cloud:standard".model: Large -> Medium\n'
    assert run("diff", "gateway.toml").stdout == "Nothing changes.\n"
    (folder / "new.toml").write_text("nonsense = 1")
    assert run("diff", "gateway.toml", "new.toml", code=1).stderr == "new.toml: nonsense: unknown key\n"


def test_the_example_is_fit_for_use(folder: Path) -> None:
    told = run("check", str(ROOT / "deploy" / "gateway.example.toml"))
    assert "4 backends, 4 tiers, 4 aliases, 4 profiles, 2 clients, 2 fallbacks" in told.stdout
    assert {line.split()[1] for line in told.stderr.splitlines() if line.startswith("warning")} == {
        "OPENROUTER_KEY",
        "CLIENT_ASSISTANT_KEY",
        "anthropic_key",
    }
