"""Public clients run their ordinary examples: on the mock, and on Poe accounts, where tools are emulated.

The programs (``programs/``) are written as a user would write them. Each tells what came of its cases; what it tells
must be what was asked for. They run in processes of their own, in the clients' own environments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pymongo import MongoClient

from tests.support.foreign import foreign_python, node_modules
from tests.support.gateway import SERVICE_KEY, EmulatorServer, GatewayServer

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "programs"
SLOWLY = "Say hello, and say it slowly."
WEATHER = "What is the weather in Paris?"
NO_CALLS_HOME = {
    "AI_SDK_LOG_WARNINGS": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "*",
    "OTEL_SDK_DISABLED": "true",
}


class Pool(NamedTuple):
    """One kind of accounts, and what its models make of the examples.

    ``tokens``: of the examples ``text`` and ``stream`` in all; None: the gateway reckons them. ``emulates``: tools are
    not their own.
    """

    model: str
    painter: str
    says: str
    city: str
    result: str
    tokens: tuple[int, int] | None
    emulates: bool


POOLS = {
    "mock": Pool(
        model="mock-1",
        painter="mock-1",
        says="[mock] ok: {}",
        city=WEATHER,
        result="[mock] ok: 18 degrees",
        tokens=(9, 18),
        emulates=False,
    ),
    "poe": Pool(
        model="GPT-4o-Mini",
        painter="Painter",
        says="echo: {}",
        city="Paris",
        result="The tools say: 18 degrees",
        tokens=None,
        emulates=True,
    ),
}


class Ends(NamedTuple):
    """What an API calls the end of an answer, and of a call."""

    done: str = "stop"
    called: str = "tool_calls"


ANTHROPIC = Ends("end_turn", "tool_use")


class Program(NamedTuple):
    """One file of ``programs/`` and its cases. ``not_poe``: cases that no Poe account can serve.

    ``here``: it runs on this very interpreter, with the packages of the tests. ``paints``: it asks for pictures.
    """

    file: str
    cases: str
    not_poe: str = ""
    ends: Ends = Ends()
    here: bool = False
    paints: bool = False


CHAT = "text stream tools streamed_tools"
RUNS = {
    "openai": Program("openai_chat.py", f"{CHAT} structured stop refused models"),
    "openai-newest": Program("openai_chat.py", f"{CHAT} structured stop refused models", here=True),
    "openai-responses": Program("openai_responses.py", f"{CHAT} structured kept kept_tools"),
    "openai-media": Program("openai_media.py", "addresses edits", "embeddings images", paints=True),
    "openai-vision": Program("openai_media.py", "vision"),
    "openai-node": Program(
        "openai_chat.mjs",
        f"{CHAT} structured responses streamed_responses responses_tools refused",
        "embeddings images",
    ),
    "anthropic": Program("anthropic_messages.py", f"{CHAT} stopped count_tokens invalid models", ends=ANTHROPIC),
    "anthropic-node": Program("anthropic_messages.mjs", f"{CHAT} count_tokens", ends=ANTHROPIC),
    "langchain-openai": Program("langchain_openai_chat.py", f"{CHAT} structured responses", "embeddings"),
    "langchain-anthropic": Program("langchain_anthropic_chat.py", f"{CHAT} structured", ends=ANTHROPIC),
    "langchain-ollama": Program("langchain_ollama_chat.py", f"{CHAT} structured"),
    "litellm": Program("litellm_chat.py", f"{CHAT} messages ollama", "embeddings"),
    "llm": Program("llm_chat.py", "text stream tools structured"),
    "ai-sdk": Program("ai_sdk.mjs", f"{CHAT} structured missing", "embeddings", ends=Ends("stop", "tool-calls")),
    "ollama": Program(
        "ollama_chat.py", f"models {CHAT} generate loaded streamed_generate structured missing", "embeddings"
    ),
    "ollama-node": Program("ollama_chat.mjs", "models text stream generate tools", "embeddings"),
}


def expected(pool: Pool, ends: Ends) -> dict[str, dict[str, Any]]:
    """By case: all that a program may tell of it, as it must be."""
    hello, slowly = pool.says.format("Say hello."), pool.says.format(SLOWLY)
    emulated = {"stop": "stop", "tools": "tools"} if pool.emulates else {"stop": None, "tools": None}
    if pool.emulates and ends is ANTHROPIC:  # its requests always have a limit
        emulated["tools"] = "tools, max_tokens"
    tools = {"calls": [["get_weather", {"city": pool.city}]], "finish": ends.called, "deltas": True, "same": True}
    loop = {**tools, "text": pool.result, "steps": 2, "emulated": emulated["tools"]}
    begins = ["created", "in_progress", "output_item.added", "content_part.added"]
    finishes = ["content_part.done", "output_item.done", "completed"]
    return {
        "models": {"served": True, "one": pool.model},
        "text": {
            "text": hello,
            "finish": ends.done,
            "status": "completed",
            "tokens": pool.tokens[0] if pool.tokens else True,
            "emulated": None,
        },
        "stream": {
            "text": slowly,
            "finish": ends.done,
            "status": "completed",
            "tokens": pool.tokens[1] if pool.tokens else True,
            "pieces": True,
            "begins": [f"response.{each}" for each in begins],
            "ends": [f"response.{each}" for each in finishes],
        },
        "tools": loop,
        "streamed_tools": {**tools, "text": pool.result},
        "structured": {"city": "Name a city by the sea.", "finish": ends.done},
        "stop": {"text": pool.says.format("one "), "emulated": emulated["stop"]},
        "stopped": {"text": pool.says.format("one "), "finish": "stop_sequence", "sequence": "two"},
        "refused": {"status": 400, "param": "n", "request_id": True},
        "invalid": {"type": "invalid_request_error", "request_id": True},
        "missing": {"status": 404, "told": True},
        "count_tokens": {"tokens": True},
        "kept_tools": loop,
        "generate": {"text": hello},
        "messages": {"text": hello},
        "ollama": {"text": hello},
        "loaded": {"reasons": ["load", "unload", "load", "load"], "done": True},
        "streamed_generate": {"text": slowly},
        "responses": {"text": hello, "before": True, "same": True},
        "streamed_responses": {"text": slowly, "same": True, "status": "completed"},
        "responses_tools": loop,
        "kept": {
            "text": hello,
            "same": True,
            "before": True,
            "session": "continued",
            "items": [["user", "Say hello."]],
            "gone": True,
        },
        "embeddings": {"sizes": [8, 8], "tokens": 2},
        "images": {"bytes": True, "count": 1},
        "addresses": {"url": "https" if pool.emulates else "data", "count": 1},
        "edits": {"count": 1},
        "vision": {"text": pool.says.format("What is this?") + ("" if pool.emulates else " (1 image)")},
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, mongo_uri: str) -> Iterator[GatewayServer]:
    """One gateway with an account of the mock and two Poe accounts whose bots do as they are told."""
    site, db = EmulatorServer("--accounts", "2", "--balance", "1000000"), f"test_{uuid.uuid4().hex}"
    server = GatewayServer(
        tmp_path_factory.mktemp("clients"),
        mongo_uri,
        db,
        POE_BASE_URL=site.base_url,
        POE_WS_BASE_URL=site.ws_base_url,
    )
    try:
        with server.running(), server.admin() as admin:
            bodies: list[dict[str, Any]] = [{"provider": "mock", "name": "mock", "credentials": {}}]
            for account in site.accounts:
                site.control("PATCH", f"/accounts/{account['email']}", follows="well")
                bodies.append(site.upsert_body(account))
            for body in bodies:
                admin.post("/admin/accounts/upsert", json=body).raise_for_status()
            yield server
    finally:
        site.stop()
        with MongoClient[dict[str, object]](mongo_uri, serverSelectionTimeoutMS=5000) as client:
            client.drop_database(db)


def run(program: Program, cases: list[str], server: GatewayServer, model: str, home: Path) -> dict[str, dict[str, Any]]:
    """What the program tells, by case."""
    if program.file.endswith(".mjs"):
        node_modules()
        runner = "node"
    else:
        runner = sys.executable if program.here else str(foreign_python(".venv-clients", "clients.lock"))
    done = subprocess.run(
        [runner, str(PROGRAMS / program.file), *cases],
        cwd=home,
        env={
            **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
            **NO_CALLS_HOME,
            "HOME": str(home),
            "LLM_USER_PATH": str(home),
            "GATEWAY_URL": server.base_url,
            "GATEWAY_KEY": SERVICE_KEY,
            "GATEWAY_MODEL": model,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line.pop("case"): line for line in lines}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", RUNS)
def test_a_client_runs_its_ordinary_examples(name: str, pool: str, gateway: GatewayServer, tmp_path: Path) -> None:
    program, served = RUNS[name], POOLS[pool]
    cases = f"{program.cases} {program.not_poe if pool != 'poe' else ''}".split()
    told = run(program, cases, gateway, served.painter if program.paints else served.model, tmp_path)
    assert list(told) == cases
    assert all(told.values()), told
    right = expected(served, program.ends)
    for case, facts in told.items():
        if "pieces" in facts:
            facts["pieces"] = facts["pieces"] > 1
        if "tokens" in facts and right[case]["tokens"] is True:
            facts["tokens"] = facts["tokens"] > 0
    assert told == {case: {fact: right[case][fact] for fact in facts} for case, facts in told.items()}
