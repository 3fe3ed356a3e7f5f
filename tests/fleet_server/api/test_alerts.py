"""``/v1/alerts``: what is wrong now, in both languages, in pages, and to each only at their nodes."""

from typing import Final

import httpx

from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.registry.model import NodeKind, OrgNode
from fleet_server.standing.measures import PRESENCE, SERVER
from fleet_server.standing.sample import Sample
from tests.fleet_server.alerting.samples import sample
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, T0, Fleet

STATIONS: Final = ("hq/station-7", "hq/station-8")


def lost(fleet: Fleet) -> None:
    """Of each station a device has lost what was receipted; of one another has gaps; quarantine is filling."""
    nodes = [OrgNode("hq", NodeKind.CENTRE, "Centre")]
    nodes += [OrgNode(path.partition("/")[2], NodeKind.STATION, path, "hq") for path in STATIONS]
    for node in nodes:
        fleet.registry.put_node(node, expected=None, create=True, now_ms=T0)
    at_ms = fleet.now_ms
    found: list[Sample] = [sample(SERVER, at_ms, quarantine_share=0.9)]
    for at, org in enumerate(STATIONS):
        kind = "body_camera"
        found.append(sample(PRESENCE, at_ms, device=f"cam-{at}", device_class=kind, org=org, gaps_lost=1.0))
    found.append(sample(PRESENCE, at_ms, device="cam-9", device_class=kind, org=STATIONS[0], gaps_unexplained=3.0))
    for _ in range(2):
        fleet.standing.put(found)
        fleet.alerts.look()
        fleet.now_ms += 300_000
        found = [each._replace(at_ms=fleet.now_ms) for each in found]
    fleet.standing.put(found)
    fleet.alerts.look()


async def test_alarms_come_first_and_say_what_is_wrong_in_each_language(api: httpx.AsyncClient, own: Fleet) -> None:
    lost(own)
    found = (await api.get("/v1/alerts")).json()["alerts"]
    assert [each["rule"] for each in found] == ["gap-lost", "gap-lost", "quarantine-filling", "gap-unexplained"]
    first = found[0]
    assert (first["device"], first["org"], first["severity"]) == ("cam-0", STATIONS[0], "alarm")
    assert (first["value"], first["unit"]) == (1.0, "count")
    assert first["text"] == first["texts"]["en"] == "cam-0 (hq/station-7): 1 gaps of what was receipted"
    assert first["texts"]["zh-Hans"].startswith("cam-0（hq/station-7）")
    assert first["runbook"] == "docs/runbooks/gap-lost.md"
    assert found[2]["org"] is None


async def test_pages_join_to_the_whole(api: httpx.AsyncClient, own: Fleet) -> None:
    lost(own)
    whole = (await api.get("/v1/alerts")).json()["alerts"]
    found, cursor = [], None
    while True:
        asked = {"limit": 1} if cursor is None else {"limit": 1, "cursor": cursor}
        page = (await api.get("/v1/alerts", params=asked)).json()
        found += page["alerts"]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == whole


async def test_alerts_are_chosen_by_place_device_and_severity(api: httpx.AsyncClient, own: Fleet) -> None:
    lost(own)

    async def rules(**asked: str) -> list[str]:
        return [each["rule"] for each in (await api.get("/v1/alerts", params=asked)).json()["alerts"]]

    assert await rules(org="hq/station-7") == ["gap-lost", "gap-unexplained"]
    assert await rules(org="hq/station-8") == ["gap-lost"]
    assert await rules(device="cam-9") == ["gap-unexplained"]
    assert await rules(severity="alarm") == ["gap-lost", "gap-lost", "quarantine-filling"]


async def test_who_acts_at_one_station_sees_its_alerts_alone(own: Fleet) -> None:
    lost(own)
    grants = [NodeGrant(Role.VIEWER, "station-8")]
    made = own.people.make_token("viewer-8", "x", grants, giver=ROOT, expires_ms=None, now_ms=T0)
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=made.secret) as client:
        found = (await client.get("/v1/alerts")).json()["alerts"]
    assert [(each["rule"], each["device"]) for each in found] == [("gap-lost", "cam-1")]
