"""Words for providers: which offers they mean, and what account the gateway keeps for a backend."""

from __future__ import annotations

import pytest

from poe_gateway.routing.table import EMPTY, Backend
from poe_gateway.routing.words import WORDS, account_fields, accounts_of, known_provider, offers_of, serves, word_of
from tests.unit.routes import table


@pytest.mark.parametrize(
    ("beginnings", "offer", "expected"),
    [
        ((), "anything", True),
        (("mock",), "mock", True),
        (("mock",), "mock:1f3a", True),
        (("mock",), "mockery", False),
        (("poe_web",), "poe_web", True),
        (("openai_api",), "openai_api:api.openai.com", True),
        (("openai_api:openrouter.ai",), "openai_api:openrouter.ai/1f3a0000", True),
        (("openai_api:openrouter.ai",), "openai_api:openrouter.ai+1f3a0000", True),
        (("openai_api:openrouter.ai",), "openai_api:openrouter.ai.example.org", False),
        (("openai_api:localhost",), "openai_api:localhost:11434", False),
        (("mock", "poe_web"), "poe_web", True),
    ],
)
def test_serves(beginnings: tuple[str, ...], offer: str, expected: bool) -> None:
    assert serves(beginnings, offer) is expected


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (None, "openai_api:api.openai.com"),
        ("https://LLM.example.org/v1", "openai_api:llm.example.org"),
        ("https://llm.example.org:443", "openai_api:llm.example.org"),
        ("http://llm.example.org:80", "openai_api:llm.example.org"),
        ("http://llm.example.org:443", "openai_api:llm.example.org:443"),
        ("http://[::1]:8000/v1", "openai_api:[::1]:8000"),
    ],
)
def test_offers_of_a_backend(base_url: str | None, expected: str) -> None:
    assert offers_of(Backend(name="b", provider="openai", base_url=base_url)) == (expected,)


@pytest.mark.parametrize("word", sorted(WORDS))
def test_every_word_is_a_provider_unless_it_has_no_usual_place(word: str) -> None:
    assert known_provider(EMPTY, word) is (word != "vllm")
    assert word_of(word.upper()) is WORDS[word]


def test_a_backend_wins_over_the_word() -> None:
    routes = table('[backends.openai]\nprovider = "vllm"\nbase_url = "http://gpu:8000"')
    found = accounts_of(routes, "openai")
    assert found is not None
    assert (found.backend, found.offers, found.labels) == ("openai", ("openai_api:gpu:8000",), ("backend:openai",))
    assert accounts_of(routes, "OpenAI") == found
    assert accounts_of(EMPTY, "gpu") is None


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (Backend(name="b", provider="openrouter", api_key_env="K"), {"preset": "openrouter", "api_key_env": "K"}),
        (
            Backend(name="b", provider="poe_api", base_url="https://x.example", api_key_file="/f"),
            {"base_url": "https://x.example", "api_key_file": "/f"},
        ),
        (
            Backend(name="b", provider="ollama", base_url="http://gpu:11434"),
            {"base_url": "http://gpu:11434", "preset": "ollama"},
        ),
        (Backend(name="b", provider="anthropic", api_key_env="K"), {"api_key_env": "K"}),
        (
            Backend(name="b", provider="qwen", api_key_env="K", extra={"region": "us"}),
            {"preset": "dashscope", "api_key_env": "K", "region": "us"},
        ),
    ],
    ids=["preset", "address", "own server", "adapter's own address", "further fields"],
)
def test_the_account_that_is_kept(backend: Backend, expected: dict[str, str]) -> None:
    assert account_fields(backend) == expected
