"""What every adapter of the registry must satisfy. A new upstream adds one line to EXAMPLES."""

import contextlib
import inspect
import re
import socket
import traceback

import pytest

from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.outcome import NetworkFault
from poe_gateway.upstreams.base import AccountRef, Bookkeeper, Capabilities, CredentialError, Fate, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.registry import build_upstreams

CANARY = "canary0secret0value"
NOWHERE = "http://127.0.0.1:{port}"

# Adapter -> a valid credential document whose every secret is a canary, and a model to ask for.
EXAMPLES = {
    "mock": ({"points": 10}, "mock-1"),
    "anthropic_api": ({"api_key": CANARY, "base_url": NOWHERE}, "m"),
    "openai_api": ({"api_key": CANARY, "base_url": NOWHERE}, "m"),
    "poe_web": (
        {
            "poe_p_b": CANARY,
            "p_lat": CANARY,
            "poe_cf_clearance": CANARY,
            "poe_cf_bm": CANARY,
            "formkey": CANARY,
            "poe_revision": "r1",
        },
        "Assistant",
    ),
}
NAMES = sorted(EXAMPLES)
OFFLINE = {"mock"}
ASKING = ChatRequest(model="m", messages=(Message("user", (TextPart("hi"),)),))
SAYS_SECRET = re.compile(r"(key|p_b|p_lat|cf_|password|secret|token|cookie)(?!.*_(env|file)$)")
"""Names of secrets, but not of the places where they are."""


@pytest.fixture
async def upstreams():
    """The registry's adapters, their network leading to a port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = NOWHERE.format(port=unused.getsockname()[1])
        async with new_session(connect_timeout=2) as session:
            built = build_upstreams(
                session=session,
                clock=SystemClock(),
                ids=Ids(1),
                poe_base_url=url,
                poe_ws_base_url=url.replace("http", "ws"),
                poe_auto_fetch_revision=False,
            )
            yield {name: (adapter, url) for name, adapter in built.items()}
            for adapter in built.values():
                await adapter.close()


def credentials(name: str, url: str) -> dict:
    return {field: url if value == NOWHERE else value for field, value in EXAMPLES[name][0].items()}


def account(name: str, url: str) -> AccountRef:
    return AccountRef(id="acc_1", name="somebody", offer=name, credentials=credentials(name, url))


async def test_every_adapter_is_here_under_its_own_name(upstreams):
    assert sorted(upstreams) == NAMES
    assert all(adapter.name == name for name, (adapter, _) in upstreams.items())


@pytest.mark.parametrize("name", NAMES)
async def test_the_schema_is_sane(upstreams, name):
    adapter, _ = upstreams[name]
    names = [field.name for field in adapter.credential_fields]
    assert len(set(names)) == len(names)
    for field in adapter.credential_fields:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", field.name)
        assert field.description, f"{field.name} is not described"
        assert field.kind in (str, int, float, bool, list, dict)
        if SAYS_SECRET.search(field.name):
            assert field.secret, f"{field.name} must be secret"
        if field.pattern is not None:
            re.compile(field.pattern)
    assert isinstance(adapter.capabilities, Capabilities)


@pytest.mark.parametrize("name", NAMES)
async def test_the_interface_is_whole(upstreams, name):
    adapter, _ = upstreams[name]
    for method in ("read_balance", "list_models", "prewarm", "probe", "forget", "close"):
        assert inspect.iscoroutinefunction(getattr(adapter, method)), method
    assert list(inspect.signature(adapter.chat).parameters) == ["account", "model", "request", "bound"]
    assert isinstance(adapter, Bookkeeper) == adapter.capabilities.books


@pytest.mark.parametrize("name", NAMES)
async def test_good_credentials_are_described_without_their_secrets(upstreams, name):
    adapter, url = upstreams[name]
    first, second = (adapter.describe(credentials(name, url)) for _ in range(2))
    assert first == second
    assert first.offer.split(":")[0] == name
    assert CANARY not in repr(first)


@pytest.mark.parametrize("name", NAMES)
async def test_bad_credentials_are_refused_by_field_and_without_values(upstreams, name):
    adapter, url = upstreams[name]
    good = credentials(name, url)
    cases = [("surprise", {**good, "surprise": CANARY})]
    for field in adapter.credential_fields:
        if field.required:
            cases.append((field.name, {key: value for key, value in good.items() if key != field.name}))
            cases.append((field.name, {**good, field.name: "  "}))
        if field.name in good:
            cases.append((field.name, {**good, field.name: {"odd": CANARY}}))
        if field.name in good and field.kind is str:
            cases.append((field.name, {**good, field.name: f"a\r\nX-Injected: {CANARY}"}))
    for culprit, document in cases:
        with pytest.raises(CredentialError) as caught:
            adapter.describe(document)
        assert caught.value.field == culprit
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
async def test_without_a_network_every_call_fails_in_a_typed_way(upstreams, name):
    adapter, url = upstreams[name]
    ref = account(name, url)
    if name in OFFLINE:
        pytest.skip("needs no network")

    async def chat(ref):
        return [event async for event in adapter.chat(ref, EXAMPLES[name][1], ASKING, None)]

    for call in (chat, adapter.list_models, adapter.probe):
        with pytest.raises(UpstreamFailure) as caught:
            await call(ref)
        assert isinstance(caught.value.outcome, NetworkFault)
        assert caught.value.fate is Fate.NOT_SENT
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.outcome)
        assert CANARY not in told


@pytest.mark.parametrize("name", NAMES)
async def test_secrets_stay_out_of_every_repr(upstreams, name):
    adapter, url = upstreams[name]
    ref = account(name, url)
    stream = adapter.chat(ref, EXAMPLES[name][1], ASKING, None)
    with contextlib.suppress(UpstreamFailure):
        await anext(stream)
    assert CANARY not in repr(ref) + str(ref) + repr(adapter) + repr(stream)
    await stream.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_may_be_closed_at_any_time_and_twice(upstreams, name):
    adapter, url = upstreams[name]
    stream = adapter.chat(account(name, url), EXAMPLES[name][1], ASKING, None)
    await stream.aclose()
    await stream.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_forgetting_strangers_and_closing_twice_are_harmless(upstreams, name):
    adapter, _ = upstreams[name]
    await adapter.forget("acc_never_seen")
    await adapter.close()
    await adapter.close()
