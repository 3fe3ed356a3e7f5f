"""What devices are told to do: by name or choice, tried before, approved by another person, taken back."""

import itertools
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import delete

from broker_config import signing
from broker_config.signing import Signature
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.command_tables import command, command_target
from fleet_server.api.app import create_app
from fleet_server.change.commands import State, Word
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, T0, Fleet, told
from tests.orders import SECOND, STRANGER, Key

NUMBERS: Final = itertools.count()
CAMS: Final = ["cam-1", "cam-2", "cam-3"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Three cameras at two stations, a signal beside them."""
    fleet = told(tmp_path_factory.mktemp("house") / "store.db")
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=T0)
    for node in ("station-1", "station-2"):
        fleet.registry.put_node(OrgNode(node, NodeKind.STATION, node, "hq"), expected=None, create=True, now_ms=T0)
    for device, device_class, node in (
        ("cam-1", "body_camera", "station-1"),
        ("cam-2", "body_camera", "station-1"),
        ("cam-3", "body_camera", "station-2"),
        ("light-1", "traffic_light", "station-1"),
    ):
        said = Registration(device, device_class, node=node)
        fleet.registry.register(said, expected=None, create=True, now_ms=T0)
    fleet.layers.put_group("spare", 1, ["cam-2"], expected=None, now_ms=T0)
    return fleet


@pytest.fixture
def own(house: Fleet) -> Fleet:
    """Where nobody has asked for anything yet."""
    with database.writing(house.engine) as connection:
        connection.execute(delete(command_target))
        connection.execute(delete(command))
    house.woken, house.signer.down = 0, False
    return house


@pytest.fixture
async def asking(own: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(own.ports, clock=lambda: NOW)) as client:
        yield client


def token(own: Fleet, name: str, role: Role = Role.EQUIPMENT_MANAGER, node: str | None = None) -> str:
    named = f"{name}-{next(NUMBERS)}"
    made = own.people.make_token(named, name, [NodeGrant(role, node)], giver=ROOT, expires_ms=None, now_ms=T0)
    return made.secret


async def sent(asking: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await asking.post("/v1/commands", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_command_has_a_target_for_each_device_that_is_meant(own: Fleet, asking: httpx.AsyncClient) -> None:
    made = await sent(asking, name="locate", parameters={"for_s": 5}, devices=["cam-1", "cam-2"])
    command = made["command"]
    assert (made["devices"], made["names"], command["summary"]) == (2, ["cam-1", "cam-2"], "2 created")
    assert (command["safety"], command["signatures"], command["by"]) == ("harmless", 1, "first-administrator")
    assert command["expires_ms"] == NOW + 60_000
    assert own.woken == 1
    listed = (await asking.get(f"/v1/commands/{command['command']}/targets")).json()["targets"]
    assert [(each["device"], each["state"], each["owner"], each["org"]) for each in listed] == [
        ("cam-1", "created", "server", "hq/station-1"),
        ("cam-2", "created", "server", "hq/station-1"),
    ]


async def test_a_dry_run_tells_whom_it_would_go_to_and_does_nothing(own: Fleet, asking: httpx.AsyncClient) -> None:
    body = {"name": "locate", "node": "station-1"}
    answer = (await asking.post("/v1/commands?dry_run=true", json=body)).json()
    assert (answer["names"], answer["unsuitable"], answer["dry_run"]) == (["cam-1", "cam-2"], ["light-1"], True)
    assert (await asking.get("/v1/commands")).json()["commands"] == []
    assert own.woken == 0


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"device_class": "body_camera"}, CAMS),
        ({"device_class": "body_camera", "node": "station-2"}, ["cam-3"]),
        ({"where": "class==body_camera;node==hq/station-1"}, ["cam-1", "cam-2"]),
        ({"where": "device==cam-*;device!=cam-2"}, ["cam-1", "cam-3"]),
        ({"where": "group==spare"}, ["cam-2"]),
    ],
)
async def test_who_is_meant(asking: httpx.AsyncClient, choice: dict[str, str], names: list[str]) -> None:
    assert (await sent(asking, name="locate", **choice))["names"] == names


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "locate"}, "both or none"),
        ({"name": "locate", "devices": ["cam-1"], "node": "station-1"}, "both or none"),
        ({"name": "locate", "devices": ["none"]}, "ids of /v1/devices"),
        ({"name": "locate", "devices": ["cam-1", "light-1"]}, "a command of the class of light-1"),
        ({"name": "no.such", "node": "station-1"}, "a command of the class of"),
        ({"name": "locate", "devices": ["cam-1"], "parameters": {"for_s": 500}}, "expected 1 to 120"),
        ({"name": "locate", "devices": ["cam-1"], "parameters": {"x": 1}}, "x: unknown"),
        ({"name": "lost.mode", "devices": ["cam-1"]}, "on: missing"),
        ({"name": "locate", "where": "class=="}, "a value at"),
        ({"name": "locate", "where": "no.such==1"}, "a fact, such as"),
        ({"name": "locate", "where": "power.battery_pct=lt=9"}, "at least one device"),  # not known is no
        ({"name": "locate", "where": "device==nobody"}, "at least one device"),
    ],
)
async def test_what_cannot_be_asked_is_said_and_nothing_is_done(
    asking: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    answer = await asking.post("/v1/commands", json=body)
    assert (answer.status_code, words in answer.text) == (422, True), answer.text
    assert (await asking.get("/v1/commands")).json()["commands"] == []


async def test_asked_twice_with_one_key_it_is_one_command(asking: httpx.AsyncClient) -> None:
    body = {"name": "locate", "devices": ["cam-1"]}
    both = [await asking.post("/v1/commands", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert both[0].json()["command"]["command"] == both[1].json()["command"]["command"]
    assert len((await asking.get("/v1/commands")).json()["commands"]) == 1


async def test_partial_results_are_told_plainly(own: Fleet, asking: httpx.AsyncClient) -> None:
    name = (await sent(asking, name="locate", devices=CAMS))["command"]["command"]
    words = [Word("cam-1", name, State.DONE), Word("cam-2", name, State.REFUSED, "busy")]
    own.commands.hear(words, now_ms=NOW)
    told = (await asking.get(f"/v1/commands/{name}")).json()
    assert (told["summary"], told["over"]) == ("1 done, 1 refused (busy), 1 created", False)
    own.commands.expire(now_ms=NOW + 60_000)
    told = (await asking.get(f"/v1/commands/{name}")).json()
    assert (told["summary"], told["over"]) == ("1 done, 1 refused (busy), 1 expired (created)", True)
    targets = await asking.get(f"/v1/commands/{name}/targets", params={"state": "refused"})
    assert [each["device"] for each in targets.json()["targets"]] == ["cam-2"]


async def test_lists_are_in_pages_the_newest_first(own: Fleet, asking: httpx.AsyncClient) -> None:
    names = {(await sent(asking, name="locate", devices=["cam-1"]))["command"]["command"] for _ in range(3)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = {"limit": "2"} if cursor is None else {"limit": "2", "cursor": cursor}
        answer = (await asking.get("/v1/commands", params=page)).json()
        seen += [each["command"] for each in answer["commands"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert (set(seen), len(seen)) == (names, 3)


async def test_what_no_device_heard_of_is_taken_back(own: Fleet, asking: httpx.AsyncClient) -> None:
    name = (await sent(asking, name="locate", devices=["cam-1", "cam-2"]))["command"]["command"]
    own.commands.hear([Word("cam-1", name, State.OBEYED)], now_ms=NOW)
    answer = (await asking.post(f"/v1/commands/{name}/cancel")).json()
    assert (answer["cancelled"], answer["command"]["summary"]) == (1, "1 cancelled, 1 obeyed")


# Two people ---------------------------------------------------------------------------------------------------------


def countersigned(order: dict[str, str], *keys: Key) -> dict[str, str]:
    envelope = signing.decode_envelope(order["order"].encode())
    more = tuple(Signature(key.keyid, key.signature(envelope.payload).sig) for key in keys)
    both = signing.Envelope(envelope.payload, envelope.payload_type, (*envelope.signatures, *more))
    return {**order, "order": signing.encode(both).decode()}


@pytest.fixture
async def second(own: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    secret = token(own, "ben")
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=secret) as client:
        yield client


async def waiting(asking: httpx.AsyncClient) -> str:
    made = await sent(asking, name="recording.start", parameters={"reason": "a call"}, devices=["cam-1", "cam-2"])
    assert made["command"]["summary"] == "2 awaiting approval"
    return str(made["command"]["command"])


async def orders(asking: httpx.AsyncClient, name: str) -> list[dict[str, str]]:
    answer = await asking.post(f"/v1/commands/{name}/orders")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, str]] = answer.json()["orders"]
    return found


async def test_what_is_hazardous_goes_out_with_a_second_persons_signature(
    own: Fleet, asking: httpx.AsyncClient, second: httpx.AsyncClient
) -> None:
    name = await waiting(asking)
    shown = await orders(second, name)
    both = [countersigned(each, SECOND) for each in shown]
    refused = await asking.post(f"/v1/commands/{name}/approve", json={"orders": both})
    assert (refused.status_code, refused.json()["type"].endswith("same-person")) == (409, True)
    answer = await second.post(f"/v1/commands/{name}/approve", json={"orders": both})
    assert (answer.status_code, answer.json()["approved_by"].startswith("ben")) == (200, True), answer.text
    due = own.commands.to_send(rows_max=9)
    assert [len(signing.decode_envelope(each.order).signatures) for each in due] == [2, 2]
    again = await second.post(f"/v1/commands/{name}/approve", json={"orders": both})
    assert again.status_code == 409


async def test_orders_that_are_not_those_that_were_shown_or_lack_a_signature_are_refused(
    own: Fleet, asking: httpx.AsyncClient, second: httpx.AsyncClient
) -> None:
    name = await waiting(asking)
    first = [countersigned(each, SECOND) for each in await orders(second, name)]
    shown = await orders(second, name)
    both = [countersigned(each, SECOND) for each in shown]
    swapped = [{**each, "device": other["device"]} for each, other in zip(both, reversed(both), strict=True)]
    for wrong, status in (
        (shown, 422),  # by the server alone
        ([countersigned(each, STRANGER) for each in shown], 422),
        (swapped, 422),
        (both[:1], 409),  # not all of them
        (first, 409),  # of an earlier showing
        ([{**each, "order": "{}"} for each in both], 422),
    ):
        answer = await second.post(f"/v1/commands/{name}/approve", json={"orders": wrong})
        assert answer.status_code == status, answer.text
    assert own.commands.to_send(rows_max=9) == []


async def test_a_signer_that_is_away_is_said(own: Fleet, asking: httpx.AsyncClient) -> None:
    name = await waiting(asking)
    own.signer.down = True
    answer = await asking.post(f"/v1/commands/{name}/orders")
    assert (answer.status_code, "cannot be reached" in answer.text) == (503, True)


# Who may ------------------------------------------------------------------------------------------------------------


async def test_who_may_at_a_node_reaches_and_sees_only_what_is_there(own: Fleet, asking: httpx.AsyncClient) -> None:
    name = (await sent(asking, name="locate", devices=CAMS))["command"]["command"]
    secret = token(own, "chief", node="station-2")
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=secret) as chief:
        assert (await chief.get(f"/v1/commands/{name}")).json()["summary"] == "1 created"
        listed = (await chief.get(f"/v1/commands/{name}/targets")).json()["targets"]
        assert [each["device"] for each in listed] == ["cam-3"]
        answer = await chief.post("/v1/commands", json={"name": "locate", "devices": ["cam-1"]})
        assert answer.status_code == 422
        assert (await sent(chief, name="locate", device_class="body_camera"))["names"] == ["cam-3"]
        assert (await chief.post(f"/v1/commands/{name}/cancel")).json()["cancelled"] == 1
    assert (await asking.get(f"/v1/commands/{name}")).json()["summary"] == "1 cancelled, 2 created"


async def test_what_a_class_can_be_told_is_listed_with_its_parameters(asking: httpx.AsyncClient) -> None:
    found = (await asking.get("/v1/device-classes/body_camera/commands")).json()["commands"]
    by_name = {each["name"]: each for each in found}
    assert {"identify", "locate", "recording.start", "reboot"} <= by_name.keys()
    assert by_name["locate"]["parameters"]["for_s"]["maximum"] == 120
    assert by_name["recording.start"]["safety"] == "hazardous"
    assert (await asking.get("/v1/device-classes/none/commands")).status_code == 404


async def test_how_commands_are_is_in_the_metrics(asking: httpx.AsyncClient) -> None:
    lines = (await asking.get("/metrics")).text.splitlines()
    assert {"fieldfleet_commands_devices_waiting 2.0", "fieldfleet_commands_said_total 7.0"} <= set(lines)
