"""Whatever a client sends, the API answers with a status that its document names, and a problem if it is an error."""

import asyncio
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.api.app import create_app
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import LIFE, NOW, T0, told

TEMPLATES = [
    ("GET", "/v1/health"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/devices/{device}"),
    ("GET", "/v1/devices/{device}/latest"),
    ("GET", "/v1/devices/{device}/series/{stream}"),
    ("GET", "/v1/devices/{device}/events"),
    ("GET", "/v1/latest"),
    ("GET", "/v1/gaps"),
    ("GET", "/v1/quarantine"),
    ("GET", "/v1/quarantine/{row_id}"),
    ("POST", "/v1/quarantine/{row_id}/replay"),
    ("GET", "/v1/facts"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/audit/checkpoint"),
    ("GET", "/v1/audit/consistency"),
    ("GET", "/v1/audit/export"),
    ("GET", "/v1/audit/proof"),
    ("GET", "/metrics"),
]
NAMES = ["limit", "cursor", "from", "to", "points", "fields", "device", "reason"]
# what is nearly right finds more than what is any text
VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.integers(-(2**53), 2**53).map(str),
    st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    st.sampled_from(
        ["car-7", "room-1", "cpu", "journal", "1", "2", "3", "WzEsMF0", "ImNhci03Ig", "off", LIFE, "nan", "1e400"]
    ),
    st.sampled_from([T0, T0 + 1, NOW, 0, -1, 2**53, 2**63, 2**70]).map(str),
)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """A fleet of its own, for requests that change something."""
    return create_app(told(tmp_path_factory.mktemp("fleet") / "store.db").ports, clock=lambda: NOW)


@given(template=st.sampled_from(TEMPLATES), parts=st.lists(VALUES, min_size=2, max_size=2), query=st.data())
@settings(max_examples=300, deadline=None)
def test_any_request(changing: FastAPI, template: tuple[str, str], parts: list[str], query: st.DataObject) -> None:
    method, path = template
    operation = changing.openapi()["paths"][path][method.lower()]
    known = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    names = st.sampled_from(known * 5 + NAMES) if known else st.sampled_from(NAMES)
    parameters = query.draw(st.lists(st.tuples(names, VALUES), max_size=4))
    values = {name: quote(parts[at % 2], safe="") or "-" for at, name in enumerate(("device", "stream", "row_id"))}

    async def ask() -> None:
        async with client_of(changing) as client:
            answer = await client.request(method, path.format(**values), params=parameters)
        # a / or a . in a name leads to another path, where there is nothing or no such method
        assert str(answer.status_code) in {*operation["responses"], "404", "405"}
        assert answer.status_code < 500
        if answer.is_error:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code

    asyncio.run(ask())
