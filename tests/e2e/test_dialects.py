"""``docs/dialects.md`` says what each dialect can ask of each kind of accounts; every cell is asked of a real gateway.

A cell is ``refused`` when the answer is 400 and nothing was sent on, ``emulated`` when ``x-gateway-emulated`` names the
feature, and else ``native``. What is not refused must show in the answer, and in what the provider was sent.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from pymongo import MongoClient

from tests.e2e.dialects.asks import BRIEF, COUNTING, HELLO, LIMIT, Answer, Ask
from tests.e2e.dialects.table import DIALECTS
from tests.e2e.obedient import ANTHROPIC_MODEL, OPENAI_MODEL, THOUGHT, Obedient
from tests.support.gateway import ROOT, SERVICE_KEY, EmulatorServer, GatewayServer
from tests.upstreams.anthropic_site import KEY

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "dialects.md"
KINDS = {"mock": "mock-1", "openai_api": OPENAI_MODEL, "anthropic_api": ANTHROPIC_MODEL, "poe_web": "GPT-4o-Mini"}
PAINTER = "Painter"
PARIS = (("get_weather", {"city": "Paris"}),)
BOTH = (*PARIS, ("get_weather", {"city": "Rome"}))
EMULATIONS = {
    **dict.fromkeys(
        (
            "tools",
            "tools, streamed",
            "a forced tool",
            "several calls at once",
            "one call at a time",
            "results of tools",
        ),
        "tools",
    ),
    **dict.fromkeys(("JSON object", "JSON by schema"), "response_format"),
    "stop": "stop",
    "max_tokens": "max_tokens",
}
"""What ``x-gateway-emulated`` calls a feature."""
DROPPED = {"temperature": "temperature", "seed": "seed", "logprobs": "logprobs", "reasoning": "reasoning_effort"}
"""What ``x-gateway-dropped`` calls a feature, where the dialect has no word of its own."""
IN_OWN_WORDS = {
    ("/v1/messages", "reasoning"): "thinking",
    ("/v1/responses", "reasoning"): "reasoning.effort",
    ("/v1/responses", "logprobs"): "include",
    ("/api/chat", "reasoning"): "think",
}


class Cell(NamedTuple):
    dialect: str
    feature: str
    kind: str
    said: str
    """What the document says."""

    def __str__(self) -> str:
        return f"{self.dialect}-{self.feature}-{self.kind}".replace(" ", "_")


def document() -> list[Cell]:
    """All cells of the document's tables, in their order."""
    cells = []
    section, kinds = "", []
    for line in DOCUMENT.read_text().splitlines() if DOCUMENT.exists() else ():
        if line.startswith("## "):
            section, kinds = line[3:].strip("`"), []
        if not line.startswith("|") or not section:
            continue
        first, *others = [each.strip().strip("`") for each in line.strip("|").split("|")]
        if not kinds:
            kinds = others
        elif not re.fullmatch(r":?-+:?", first):
            cells += [Cell(section, first, kind, said) for kind, said in zip(kinds, others, strict=True)]
    return cells


class World(NamedTuple):
    """A gateway and what stands behind it."""

    client: httpx.Client
    providers: Obedient
    site: EmulatorServer

    def post(self, ask: Ask, headers: dict[str, str] | None = None) -> httpx.Response:
        if ask.files is not None:
            return self.client.post(ask.path, data=ask.body, files=ask.files, headers=headers)
        return self.client.post(ask.path, json=ask.body, headers=headers)

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """What a provider was asked for answers, oldest first; nothing of kinds that are not asked by an API."""
        return self.providers.seen(kind) if kind in ("openai_api", "anthropic_api") else []

    def uploads(self) -> int:
        """Files that the Poe account was handed."""
        email = self.site.accounts[0]["email"]
        uploads: int = self.site.control("GET", f"/accounts/{email}")["stats"]["uploads"]
        return uploads


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mongo_uri: str) -> Iterator[World]:
    """A gateway with one account of each kind."""
    site, providers = EmulatorServer("--accounts", "1", "--balance", "1000000"), Obedient()
    db = f"test_{uuid.uuid4().hex}"
    home = tmp_path_factory.mktemp("dialects")
    server = GatewayServer(home, mongo_uri, db, POE_BASE_URL=site.base_url, POE_WS_BASE_URL=site.ws_base_url)
    [account] = site.accounts
    site.control("PATCH", f"/accounts/{account['email']}", follows="well")
    openai = {"base_url": providers.openai.url, "api_key": "sk-test-obedient"}
    anthropic = {"base_url": providers.anthropic.url, "api_key": KEY}
    bodies = [
        {"provider": "mock", "name": "mock", "credentials": {}},
        {"provider": "openai_api", "name": "openai", "credentials": openai},
        {"provider": "anthropic_api", "name": "anthropic", "credentials": anthropic},
        site.upsert_body(account),
    ]
    try:
        with (
            server.running(),
            server.admin() as admin,
            httpx.Client(
                base_url=server.base_url,
                headers={"Authorization": f"Bearer {SERVICE_KEY}"},
                timeout=60,
                trust_env=False,
            ) as client,
        ):
            for body in bodies:
                admin.post("/admin/accounts/upsert", json=body).raise_for_status()
            yield World(client, providers, site)
    finally:
        providers.end()
        site.stop()
        with MongoClient[dict[str, object]](mongo_uri, serverSelectionTimeoutMS=5000) as mongo:
            mongo.drop_database(db)


def events(answer: httpx.Response) -> list[Any]:
    """The data of a stream: of server-sent events, or of lines."""
    lines = [line for line in answer.text.splitlines() if line]
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def _form(text: str) -> bool:
    return isinstance(json.loads(text), dict)


def _place(text: str) -> bool:
    value = json.loads(text)
    return list(value) == ["city"] and isinstance(value["city"], str)


SHOWS: dict[str, Callable[[Answer, str], bool]] = {
    "text": lambda answer, kind: HELLO in answer.text,
    "/api/generate": lambda answer, kind: HELLO in answer.text,
    "stream": lambda answer, kind: HELLO in answer.text and answer.pieces > 1,
    "system text": lambda answer, kind: HELLO in answer.text and (kind != "poe_web" or BRIEF in answer.text),
    "tools": lambda answer, kind: _calls(answer, kind) == PARIS,
    "tools, streamed": lambda answer, kind: _calls(answer, kind) == PARIS,
    "a forced tool": lambda answer, kind: _calls(answer, kind) == PARIS,
    # The mock calls one tool at a time, whatever is asked.
    "several calls at once": lambda answer, kind: _calls(answer, kind) == (PARIS if kind == "mock" else BOTH),
    "one call at a time": lambda answer, kind: _calls(answer, kind) == PARIS,
    "results of tools": lambda answer, kind: "18 degrees" in answer.text and "25 degrees" in answer.text,
    "JSON object": lambda answer, kind: _form(answer.text),
    "JSON by schema": lambda answer, kind: _place(answer.text),
    "image as data": lambda answer, kind: kind != "mock" or "(1 image)" in answer.text,
    "image by address": lambda answer, kind: kind != "mock" or "(1 image)" in answer.text,
    "stop": lambda answer, kind: answer.text.endswith("two "),
    "max_tokens": lambda answer, kind: answer.finish == "length" and len(answer.text) < len(COUNTING),
    "temperature": lambda answer, kind: HELLO in answer.text,
    "seed": lambda answer, kind: HELLO in answer.text,
    "logprobs": lambda answer, kind: answer.logprobs,
    "reasoning": lambda answer, kind: answer.reasoning in (THOUGHT, f"[mock] thinking of: {HELLO}"),
    "store": lambda answer, kind: HELLO in answer.text,
    "previous answer": lambda answer, kind: HELLO in answer.text,
    "count_tokens": lambda answer, kind: answer.items >= 3,
    "/v1/embeddings": lambda answer, kind: answer.items == 1,
    "/api/embed": lambda answer, kind: answer.items == 1,
    "/v1/images/generations": lambda answer, kind: answer.items == 1,
    "/v1/images/edits": lambda answer, kind: answer.items == 1,
}
"""How a feature shows in an answer."""


def _calls(answer: Answer, kind: str) -> tuple[tuple[str, Any], ...]:
    """The calls; the mock's arguments are the question itself, in the place of the city."""
    if kind != "mock":
        return answer.calls
    return tuple((name, {"city": "Paris"}) for name, arguments in answer.calls if "Paris" in arguments["city"])


SENT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "system text": lambda body: BRIEF in json.dumps(body.get("system", body["messages"][0])),
    "tools": lambda body: len(body["tools"]) == 1,
    "a forced tool": lambda body: "get_weather" in json.dumps(body["tool_choice"]),
    "JSON object": lambda body: body["response_format"]["type"] == "json_object",
    "JSON by schema": lambda body: (
        "additionalProperties" in json.dumps(body.get("response_format", body.get("output_config")))
    ),
    "image as data": lambda body: "image" in json.dumps(body["messages"]),
    "image by address": lambda body: "/dot.png" in json.dumps(body["messages"]),
    "temperature": lambda body: body["temperature"] == 0.5,
    "seed": lambda body: body["seed"] == 7,
    "logprobs": lambda body: body["logprobs"] is True,
    "max_tokens": lambda body: LIMIT in (body.get("max_tokens"), body.get("max_completion_tokens")),
    "previous answer": lambda body: json.dumps(body["messages"]).count(HELLO) == 3,
    "stop": lambda body: ["three"] in (body.get("stop"), body.get("stop_sequences")),
}
"""How a feature shows in what a provider is sent, where it is native."""


def measured(world: World, cell: Cell) -> str:
    """What the gateway does with one cell; fails when it does not do what it says."""
    dialect, feature, kind = DIALECTS[cell.dialect], cell.feature, cell.kind
    model = PAINTER if kind == "poe_web" and "images/" in feature else KINDS[kind]
    ask = dialect.asks[feature](model, world.providers.picture)
    if feature == "previous answer":
        ask.body["previous_response_id"] = world.post(ask).json()["id"]
    sent_before, uploads_before = len(world.sent(kind)), world.uploads()
    response = world.post(ask)
    sent = world.sent(kind)[sent_before:]
    if response.status_code == 400:
        assert says_why(response.json()) and not sent, response.text
        return "refused"
    assert response.status_code == 200, response.text
    streams = ask.body.get("stream") is True
    answer = dialect.streamed(events(response)) if streams else dialect.whole(response.json())
    assert SHOWS[feature](answer, kind), (answer, response.text)
    if EMULATIONS.get(feature) in response.headers.get("x-gateway-emulated", "").split(", "):
        return "emulated"
    if sent and feature in SENT:
        assert len(sent) == 1 and SENT[feature](sent[0]), sent
    if kind == "poe_web" and feature.startswith("image "):
        assert world.uploads() == uploads_before + 1
    if feature == "store":
        assert world.client.get(f"/v1/responses/{response.json()['id']}").json() == response.json()
    if feature == "previous answer" and not sent:
        assert response.headers["x-gateway-session"] == "continued"
    return "native"


def says_why(body: Any) -> bool:
    """Whether it is a refusal with a reason, in the shape of any dialect."""
    error = body["error"]
    return bool(error if isinstance(error, str) else error["message"])


def test_the_document_has_a_cell_for_everything_that_can_be_asked() -> None:
    asked = [(name, feature, kind) for name, dialect in DIALECTS.items() for feature in dialect.asks for kind in KINDS]
    assert [(cell.dialect, cell.feature, cell.kind) for cell in document()] == asked


@pytest.mark.parametrize("cell", document(), ids=str)
def test_the_document_tells_the_truth(cell: Cell, world: World) -> None:
    assert measured(world, cell) == cell.said


@pytest.mark.parametrize(
    "cell", [cell for cell in document() if cell.said == "refused" and cell.feature in DROPPED], ids=str
)
def test_what_only_tunes_an_answer_is_left_out_where_the_caller_allows_it(cell: Cell, world: World) -> None:
    dialect = DIALECTS[cell.dialect]
    response = world.post(dialect.asks[cell.feature](KINDS[cell.kind], ""), {"X-Gateway-Drop-Params": "true"})
    assert response.status_code == 200, response.text
    assert HELLO in dialect.whole(response.json()).text
    assert response.headers["x-gateway-dropped"] == IN_OWN_WORDS.get(
        (cell.dialect, cell.feature), DROPPED[cell.feature]
    )


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("GET", "/v1/moderations", "openai"),
        ("GET", "/v1/messages/batches", "anthropic"),
        ("POST", "/messages/batches", "anthropic"),
        ("POST", "/api/pull", "ollama"),
        ("DELETE", "/api/tags", "ollama"),
    ],
    ids=["openai", "anthropic", "without-version", "ollama", "method"],
)
def test_what_is_not_there_is_refused_in_the_shape_of_its_dialect(
    method: str, path: str, shape: str, world: World
) -> None:
    response = world.client.request(method, path)
    assert response.status_code == (405 if method == "DELETE" else 404)
    body = response.json()
    if shape == "ollama":
        assert isinstance(body["error"], str)
    elif shape == "anthropic":
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
        assert body["request_id"] == response.headers["x-request-id"]
    else:
        assert body["error"]["code"] == "unknown_url"
