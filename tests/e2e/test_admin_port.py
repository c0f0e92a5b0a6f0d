"""``ADMIN_PORT`` on real processes: two workers, two ports, each with its own side of the gateway."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.support.gateway import ADMIN_KEY, SERVICE_KEY, GatewayServer, single
from tests.support.ports import free_port

Start = Callable[..., GatewayServer]
pytestmark = pytest.mark.slow

SIDES = {
    "/admin/accounts": (404, 200),
    "/metrics": (404, 200),
    "/v1/models": (200, 404),
    "/healthz": (200, 200),
    "/readyz": (200, 200),
    "/status": (200, 200),
    "/openapi.json": (200, 200),
    "/docs": (200, 200),
}


def keyed(path: str) -> dict[str, str]:
    key = ADMIN_KEY if path.startswith("/admin") else SERVICE_KEY
    return {"Authorization": f"Bearer {key}", "Connection": "close"}


def test_operators_have_a_port_of_their_own_and_callers_theirs(gateway: Start) -> None:
    port = free_port()
    server = gateway(workers=2, ADMIN_PORT=str(port), GATEWAY_DEMO_POOL="true")
    main, second = server.base_url, f"http://127.0.0.1:{port}"
    for path, (here, there) in SIDES.items():
        # Often enough that both workers are met at each door.
        for address, expected in ((main, here), (second, there)):
            answers = [single.get(address + path, headers=keyed(path)) for _ in range(12)]
            assert Counter(answer.status_code for answer in answers) == {expected: 12}, (address, path)
            assert all(answer.headers["x-request-id"] for answer in answers)
    answer = server.client().chat.completions.create(model="mock-1", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content
    refused = single.post(second + "/v1/chat/completions", headers=keyed("/v1"), json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_url")
    # What was done at one door is told at the other, over both workers.
    requests = single.get(main + "/status").json()["requests"]
    assert (requests["total"], requests["errors"]) == (13, 0)

    server.stop()
    with pytest.raises(httpx.ConnectError):
        single.get(second + "/healthz")
    assert "Traceback" not in server.output()


def test_a_port_that_is_taken_is_told_in_one_message(gateway: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"ADMIN_PORT {port} at ADMIN_HOST 127.0.0.1") as ended:
            gateway(workers=2, ADMIN_PORT=str(port))
    assert "Traceback" not in str(ended.value)


def test_without_it_one_port_serves_everything(gateway: Start) -> None:
    server = gateway(GATEWAY_DEMO_POOL="true")
    for path in SIDES:
        assert single.get(server.base_url + path, headers=keyed(path)).status_code == 200
