"""What is masked, and what has to stay readable."""

import time

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.telemetry.redaction import (
    MASK,
    forget_secrets,
    is_secret_name,
    redact,
    redact_field,
    redact_text,
    register_secret,
)

COOKIES = ("Cookie", "Set-Cookie", "p-b", "p_b", "poe_p_b", "P_LAT", "poe_cf_clearance", "poe_cf_bm")
KEYS = ("api_key", "apikey", "X-API-Key", "formkey", "poe-formkey", "FERNET_KEY", "ADMIN_API_KEY", "SERVICE_API_KEYS")
OTHERS = ("Authorization", "password", "client_secret", "webhook_secret", "credentials", "access_token", "token")


@pytest.fixture(autouse=True)
def clean():
    forget_secrets()
    yield
    forget_secrets()


@pytest.mark.parametrize("name", [*COOKIES, *KEYS, *OTHERS])
def test_names_that_say_secret(name):
    assert is_secret_name(name)
    assert redact_field(name, "whatever") == MASK
    assert redact_field(name, {"a": "b"}) == MASK


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "max_tokens", "key_id", "key_name", "model", "http_body", "credential_rev", "session"]
)
def test_names_that_do_not(name):
    assert redact_field(name, "plain") == "plain"
    assert redact_field(name, 17) == 17


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("got Authorization: Bearer abc.def-123456 here", "got Authorization: Bearer *** here"),
        ("bearer ABCDEFGHIJKLMNOP", "bearer ***"),
        ("Bearer authentication needed", "Bearer authentication needed"),
        ("authorization: Basic dXNlcjpwdw==", "authorization: Basic ***"),
        ("OPENAI_API_KEY=abc was set", "OPENAI_API_KEY=*** was set"),
        ("cookies p-b=Zx81%3D; p-lat=abc; theme=dark", "cookies p-b=***; p-lat=***; theme=dark"),
        ('{"p_b": "abcdef", "x": 1}', '{"p_b": "***", "x": 1}'),
        ("cf_clearance=abc.def-1-2", "cf_clearance=***"),
        ("mongodb://user:hunter22@db:27017/x", "mongodb://user:***@db:27017/x"),
        ("key sk-abcdefghijklmnop1234 refused", "key *** refused"),
        ("key pgw_abcd1234.efghijklmnopqrs refused", "key *** refused"),
        ("https://host:8443/path stays", "https://host:8443/path stays"),
        ("acc_0123456789abcdefghij stays", "acc_0123456789abcdefghij stays"),
        ("2 points, 3 tokens", "2 points, 3 tokens"),
    ],
)
def test_values_that_look_like_secrets(text, left):
    assert redact_text(text) == left


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_no_fernet_token_survives_whatever_stands_around_it(content, before, after):
    key = Fernet(Fernet.generate_key())
    token = key.encrypt(content).decode()
    assert token not in redact_text(f"{before} {token} {after}")


def test_registered_secrets_are_masked_everywhere():
    register_secret("canary-4711")
    told = redact({"note": ["x canary-4711 y", {"deep": b"canary-4711"}], "n": 3, "who": ("a", None)})
    assert told == {"note": ["x *** y", {"deep": "***"}], "n": 3, "who": ["a", None]}


def test_short_and_superfluous_secrets_do_not_pile_up():
    register_secret("abc")
    assert redact_text("abc abc abc") == "abc abc abc"
    for number in range(300):
        register_secret(f"secret-{number:05}")
    assert redact_text("secret-00299") == MASK
    assert redact_text("secret-00000") == "secret-00000"


def test_bottomless_values_are_cut():
    endless: dict = {}
    endless["self"] = endless
    assert "…" in str(redact(endless))


def test_masking_stays_fast_on_hostile_texts():
    for part in ("a.", "a://", "p_b", "bearer ", "api_key ", ":", "gAAAA", "sk-"):
        started = time.process_time()
        redact_text(part * (200_000 // len(part)))
        assert time.process_time() - started < 2, part
