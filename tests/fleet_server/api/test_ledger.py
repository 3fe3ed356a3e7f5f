"""Ledger, dispatches and interviews over the API: from the journal in the batch store, and the pieces."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from broker_config.ids import DeviceId
from broker_config.manifest import Moment
from broker_config.telemetry import Event
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.evidence import certificate
from fleet_server.registry.assignments import Handing, With
from fleet_server.registry.model import DutyUnit, NodeKind, OrgNode, Registration
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.evidence.arrivals import DAY_MS, T0, segment
from tests.fleet_server.fleet import BOOT, Fleet, journal, record, told

CAMERA: Final = DeviceId("cam-7")
ROOM: Final = DeviceId("room-1")
NOW: Final = T0 + 3 * DAY_MS
S: Final = 1_000
SINCE: Final = {"from": T0 - DAY_MS}
CSV: Final = {"Content-Type": "text/csv"}
HEADER: Final = "dispatch,node,begin,end,holder,device\n"
CALLS: Final = (
    HEADER
    + "call-1,station-7,2026-01-01T08:00:00Z,2026-01-01T08:10:00Z,4711,\n"
    + "call-2,station-7,2026-01-01T12:00:00+01:00,2026-01-01T12:10:00+01:00,4711,\n"
)


class Desk:
    def __init__(
        self, fleet: Fleet, ann: httpx.AsyncClient, near: httpx.AsyncClient, admin: httpx.AsyncClient
    ) -> None:
        self.fleet, self.ann, self.near, self.admin = fleet, ann, near, admin


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A camera of which r-1 is here whole, r-2 in part, and r-3 not at all; a room with an interview."""
    fleet = told(tmp_path / "store.db")
    registry = fleet.registry
    registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=T0)
    for name in ("station-7", "station-8"):
        registry.put_node(OrgNode(name, NodeKind.STATION, name, "hq"), expected=None, create=True, now_ms=T0)
    registry.put_unit(DutyUnit("unit-4", "Fourth", "station-7"), expected=None, create=True)
    said = Registration(CAMERA, "body_camera", node="station-7", unit="unit-4")
    registry.register(said, expected=None, create=True, now_ms=T0)
    room = Registration(ROOM, "interrogation_room", node="station-8")
    registry.register(room, expected=None, create=True, now_ms=T0)
    events = [
        *(Event("recording.opened", {"recording": f"r-{n}", "file_class": "recordings"}) for n in (1, 2, 3)),
        Event(
            "recording.closed", {"recording": "r-2", "file_class": "recordings", "segments": 2.0, "reason": "button"}
        ),
    ]
    fleet.arrive(record(CAMERA, journal(1, t0=T0, events=events)))
    began = record(ROOM, journal(1, t0=T0, events=[Event("session.start", {"reference": "i-1"})]))
    fleet.arrive(
        began, record(ROOM, journal(2, t0=T0 + 60 * S, events=[Event("session.stop", {"reference": "i-1"})]))
    )
    fleet.custody.entered(holder="4711", segment=segment("r-1", 1, last=True))
    fleet.custody.entered(holder="4711", segment=segment("r-2", 1))
    at: dict[str, Any] = {"unc_ms": 40, "src": "ntp", "boot": BOOT}
    begin, end = Moment(T0 - 5 * S, mono=55_000, **at), Moment(T0 + 30 * S, mono=90_000, **at)
    fleet.custody.entered(device=ROOM, segment=segment("i-1", 1, last=True), begin=begin, end=end)

    def secret(name: str, role: Role, node: str | None) -> str:
        grants = [NodeGrant(role, node)]
        return fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=T0).secret

    app = create_app(fleet.ports, clock=lambda: NOW)
    ann, near = secret("ann", Role.EVIDENCE_REVIEWER, None), secret("near", Role.EVIDENCE_REVIEWER, "station-8")
    async with client_of(app, token=ann) as a, client_of(app, token=near) as n, client_of(app) as admin:
        yield Desk(fleet, a, n, admin)
    fleet.store.close()


async def answered(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_the_ledger_tells_what_was_expected_and_what_is_here(desk: Desk) -> None:
    found = await answered(await desk.ann.get("/v1/evidence/ledger", params={**SINCE, "device": CAMERA}))
    rows = {each["recording"]: each for each in found["rows"]}
    assert {name: row["standing"] for name, row in rows.items()} == {
        "r-1": "verified",
        "r-2": "overdue",
        "r-3": "overdue",  # known from the journal alone
    }
    assert (rows["r-2"]["missing"], rows["r-2"]["verified"], rows["r-2"]["holder"]) == ([[2, 2]], [[1, 1]], "4711")
    assert (rows["r-3"]["org"], rows["r-3"]["unit"], rows["r-3"]["late_ms"] > 0) == ("hq/station-7", "unit-4", True)
    late = await answered(await desk.ann.get("/v1/evidence/ledger", params={**SINCE, "standing": "verified"}))
    assert [each["recording"] for each in late["rows"]] == ["r-1", "i-1"]


async def test_pages_of_the_ledger_are_all_of_it(desk: Desk) -> None:
    whole = (await answered(await desk.ann.get("/v1/evidence/ledger", params=SINCE)))["rows"]
    seen: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = await answered(await desk.ann.get("/v1/evidence/ledger", params={**SINCE, "limit": 1, **cursor}))
        assert len(page["rows"]) <= 1
        seen += page["rows"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert seen == whole
    assert len(whole) == 4


async def test_days_are_counted_and_what_is_elsewhere_is_not_there(desk: Desk) -> None:
    day = (await answered(await desk.ann.get("/v1/evidence/ledger-days", params={**SINCE, "unit": "unit-4"})))["days"]
    assert [(each["expected"], each["verified"], each["overdue"], each["segments_missing"]) for each in day] == [
        (3, 1, 2, 1)
    ]
    near = (await answered(await desk.near.get("/v1/evidence/ledger", params=SINCE)))["rows"]
    assert {each["device"] for each in near} == {ROOM}
    one = await answered(await desk.near.get("/v1/evidence/ledger", params={**SINCE, "device": CAMERA}))
    assert one == {"rows": [], "next": None}


async def test_a_time_that_is_too_long_is_refused(desk: Desk) -> None:
    answer = await desk.ann.get("/v1/evidence/ledger", params={"from": NOW - 32 * DAY_MS})
    assert answer.status_code == 422


async def test_a_call_with_a_recording_of_its_officer_is_recorded_and_one_without_is_explained_once(
    desk: Desk,
) -> None:
    done = await answered(await desk.admin.post("/v1/imports/dispatches", content=CALLS, headers=CSV))
    assert done["created_names"] == ["call-1", "call-2"]
    listed = (await answered(await desk.ann.get("/v1/evidence/dispatches", params=SINCE)))["dispatches"]
    assert [(each["dispatch"], each["outcome"], each["answered_by"]) for each in listed] == [
        ("call-1", "recorded", CAMERA),
        ("call-2", "unexplained", None),
    ]
    path = "/v1/evidence/dispatches/{}/explanation"
    why = {"why": "battery_empty", "note": "was not charged"}
    assert (await desk.admin.post(path.format("call-2"), json=why)).status_code == 403
    assert (await desk.near.post(path.format("call-2"), json=why)).status_code == 404
    assert (await desk.ann.post(path.format("call-1"), json=why)).status_code == 409
    assert (await desk.ann.post(path.format("call-2"), json={"why": "because"})).status_code == 422
    told_ = await answered(await desk.ann.post(path.format("call-2"), json=why))
    assert (told_["outcome"], told_["why"], told_["explained_by"]) == ("explained", "battery_empty", "ann")
    assert (await desk.ann.post(path.format("call-2"), json={"why": "forgotten"})).status_code == 409
    moved = CALLS.replace("12:10", "12:11")
    refused = await desk.admin.post("/v1/imports/dispatches", content=moved, headers=CSV)
    assert (refused.status_code, "call-2" in refused.text) == (409, True)
    rates = (await answered(await desk.ann.get("/v1/evidence/dispatch-rates", params=SINCE)))["rates"]
    assert [(each["org"], each["dispatches"], each["recorded"], each["explained"]) for each in rates] == [
        ("hq/station-7", 2, 1, 1)
    ]


async def test_a_call_is_answered_by_a_recording_of_whoever_had_the_device_by_assignment(desk: Desk) -> None:
    """r-3 is in the journal alone, and so is known to be 4713's by the book alone."""
    handing = Handing(CAMERA, With(officer="4713"), "ann", T0, T0 + 60 * S)
    desk.fleet.assignments.check_out(handing, now_ms=NOW)
    calls = HEADER + "call-7,station-7,2026-01-01T08:00:00Z,2026-01-01T08:10:00Z,4713,\n"
    await answered(await desk.admin.post("/v1/imports/dispatches", content=calls, headers=CSV))
    (call,) = (await answered(await desk.ann.get("/v1/evidence/dispatches", params=SINCE)))["dispatches"]
    assert (call["outcome"], call["answered_by"], call["recording"]) == ("recorded", CAMERA, "r-3")
    rows = (await answered(await desk.ann.get("/v1/evidence/ledger", params={**SINCE, "device": CAMERA})))["rows"]
    assert {each["recording"]: (each["holder"], each["holder_by"]) for each in rows} == {
        "r-1": ("4711", "manifest"),
        "r-2": ("4711", "manifest"),
        "r-3": ("4713", "assignment"),
    }


async def test_pieces_are_found_by_whose_device_it_was_and_say_who_says_so(desk: Desk) -> None:
    handing = Handing(ROOM, With(officer="4713"), "ann", T0 - 60 * S, T0 + 60 * S)
    desk.fleet.assignments.check_out(handing, now_ms=NOW)
    path = "/v1/evidence/pieces"
    (theirs,) = (await answered(await desk.ann.get(path, params={"holder": "4713"})))["pieces"]
    assert (theirs["device"], theirs["holder"], theirs["holder_by"], theirs["assigned"]) == (
        ROOM,
        "4713",
        "assignment",
        "4713",
    )
    said = (await answered(await desk.ann.get(path, params={"holder": "4711"})))["pieces"]
    assert {(each["holder"], each["holder_by"], each["assigned"]) for each in said} == {("4711", "manifest", None)}


async def test_every_fault_of_an_import_is_told_with_its_line_and_nothing_is_kept(desk: Desk) -> None:
    lines = (
        "call-1,station-7,2026-01-01T08:00:00Z,,4711,\n"
        "call-2,station-7,2026-01-01T08:00:00,,4711,\n"  # no offset
        "call-3,station-7,2026-01-01T08:00:00Z,2026-01-01T07:00:00Z,4711,\n"
        "call-4,station-7,2026-01-01T08:00:00Z,,,\n"
        "call-1,station-7,2026-01-01T08:00:00Z,,4711,\n"
    )
    answer = await desk.admin.post("/v1/imports/dispatches", content=HEADER + lines, headers=CSV)
    assert answer.status_code == 422
    assert [each["where"] for each in answer.json()["errors"]] == ["line 3", "line 6", "line 4", "line 5"]
    nowhere = HEADER + "call-9,nowhere,2026-01-01T08:00:00Z,,4711,\n"
    assert (await desk.admin.post("/v1/imports/dispatches", content=nowhere, headers=CSV)).status_code == 422
    assert (await desk.ann.post("/v1/imports/dispatches", content=CALLS, headers=CSV)).status_code == 403
    listed = await answered(await desk.ann.get("/v1/evidence/dispatches", params=SINCE))
    assert listed["dispatches"] == []


async def test_calls_are_entered_as_json_too(desk: Desk) -> None:
    call = {"dispatch": "call-5", "node": "station-7", "begin": "2026-01-01T08:00:00Z", "device": CAMERA}
    made = await answered(await desk.admin.post("/v1/evidence/dispatches", json={"dispatches": [call]}))
    assert made["created"] == 1
    again = await answered(await desk.admin.post("/v1/evidence/dispatches", json={"dispatches": [call]}))
    assert again["unchanged"] == 1
    twice = await desk.admin.post("/v1/evidence/dispatches", json={"dispatches": [call, call]})
    assert twice.status_code == 422
    assert (await answered(await desk.ann.get("/v1/evidence/dispatches/call-5")))["outcome"] == "recorded"


async def test_an_interviews_gap_is_named_and_certified(desk: Desk) -> None:
    found = (await answered(await desk.near.get("/v1/evidence/interviews", params=SINCE)))["interviews"]
    assert [(each["reference"], each["length_ms"], each["covered_ms"], each["whole"]) for each in found] == [
        ("i-1", 60 * S, 30 * S, False)
    ]
    assert found[0]["gaps"] == [{"from_ms": 30 * S, "to_ms": 60 * S, "cause": "unexplained", "detail": ""}]
    path = f"/v1/evidence/interviews/{ROOM}/{T0}/certificate"
    assert (await desk.admin.post(path)).status_code == 403
    made = await answered(await desk.near.post(path))
    document, text = certificate.verified(msgspec.json.encode(made), SIGNER.verifier)
    assert (document.device, document.issued_by, document.gaps_total) == (ROOM, "near", 1)
    assert "NOT recorded without a gap" in text
    assert (await desk.near.post(path.replace(str(T0), "7"))).status_code == 404
    log = await answered(await desk.admin.get("/v1/audit", params={"action": "custody.certify"}))
    assert {each["subject"] for each in log["entries"]} == {ROOM}
