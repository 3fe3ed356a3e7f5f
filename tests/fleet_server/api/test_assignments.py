"""Assignments over the API: given out if ready, taken back, handed over, corrected; who had what, and who may ask."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker_config.ids import DeviceId
from broker_config.telemetry import Event
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.registry.model import DutyUnit, NodeKind, OrgNode, Registration
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, T0, Fleet, birth, cpu, journal, record, told

CAMERA: Final = DeviceId("cam-7")
BOARD: Final = DeviceId("board-8")
S: Final = 1_000
CSV: Final = {"Content-Type": "text/csv"}
OUT: Final = "/v1/devices/cam-7/check-out"
WHY: Final = "the only one left"


class Desk:
    """``mgr``: the equipment manager of station 7; ``far``: of station 8; ``clock``: may be moved."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.now_ms = NOW
        self.mgr: httpx.AsyncClient
        self.far: httpx.AsyncClient
        self.admin: httpx.AsyncClient
        self.viewer: httpx.AsyncClient


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A camera of station 7 of which little is known, and a board that is ready."""
    fleet = told(tmp_path / "store.db")
    registry = fleet.registry
    registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=T0)
    for name in ("station-7", "station-8"):
        registry.put_node(OrgNode(name, NodeKind.STATION, name, "hq"), expected=None, create=True, now_ms=T0)
    registry.put_unit(DutyUnit("unit-4", "Fourth", "station-7"), expected=None, create=True)
    for device, kind in ((CAMERA, "body_camera"), (BOARD, "in_car_terminal")):
        said = Registration(device, kind, node="station-7")
        registry.register(said, expected=None, create=True, now_ms=T0)
    fleet.arrive(birth(CAMERA), *(record(CAMERA, cpu(n, t0=T0 + (n - 1) * 5 * S)) for n in (1, 2, 3)))
    desk = Desk(fleet)

    def client(name: str, role: Role, node: str | None) -> Any:
        grants = [NodeGrant(role, node)]
        made = fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=T0)
        return client_of(app, token=made.secret)

    app = create_app(fleet.ports, clock=lambda: desk.now_ms)
    async with (
        client("mgr", Role.EQUIPMENT_MANAGER, "station-7") as desk.mgr,
        client("far", Role.EQUIPMENT_MANAGER, "station-8") as desk.far,
        client("viewer", Role.VIEWER, None) as desk.viewer,
        client_of(app) as desk.admin,
    ):
        yield desk
    fleet.store.close()


async def answered(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


async def given(desk: Desk, **body: Any) -> Any:
    """The camera, given out though it is not ready."""
    said = {"officer": "4711", "override": WHY, **body}
    return (await answered(await desk.mgr.post(OUT, json=said)))["assignment"]


async def test_what_is_not_ready_is_given_out_only_by_who_says_why(desk: Desk) -> None:
    refused = await answered(await desk.mgr.post(OUT, json={"officer": "4711"}), 409)
    assert refused["type"].endswith("not-ready")
    broken = {each["where"]: each["got"].partition(":")[0] for each in refused["errors"]}
    assert broken == {
        f"readiness.{rule}": "unknown" for rule in ("battery", "free_space", "self_test", "certificate")
    }
    made = await given(desk)
    assert (made["officer"], made["reason"], made["by"], made["org"]) == ("4711", WHY, "mgr", "hq/station-7")
    assert made["unready"] == ["battery", "free_space", "self_test", "certificate"]


async def test_a_dry_run_tells_how_ready_it_is_and_gives_nothing_out(desk: Desk) -> None:
    tried = await answered(await desk.mgr.post(f"{OUT}?dry_run=true", json={"officer": "4711"}))
    assert (tried["dry_run"], tried["readiness"]["ready"], tried["assignment"]) == (True, False, None)
    ready = await answered(await desk.viewer.get("/v1/devices/cam-7/readiness"))
    assert ready == tried["readiness"]
    assert (await answered(await desk.mgr.get("/v1/assignments")))["assignments"] == []
    await given(desk)
    assert (await desk.mgr.post(f"{OUT}?dry_run=true", json={"officer": "4712"})).status_code == 409


async def test_a_self_test_in_the_journal_is_heard_of(desk: Desk) -> None:
    async def self_test() -> tuple[str, str]:
        found = await answered(await desk.viewer.get("/v1/devices/cam-7/readiness"))
        (one,) = [each for each in found["answers"] if each["rule"] == "self_test"]
        return one["outcome"], one["got"]

    done = Event("command.done", {"id": "1", "name": "self.test", "passed": True})
    other = Event("command.done", {"id": "2", "name": "identify"})
    desk.fleet.arrive(record(CAMERA, journal(1, t0=T0, events=[done, other])))
    assert await self_test() == ("ok", "passed 0.2 h ago")
    found = Event("command.done", {"id": "3", "name": "self.test", "passed": False, "faults": "driver: power"})
    desk.fleet.arrive(record(CAMERA, journal(2, t0=T0 + 60 * S, events=[found])))
    assert await self_test() == ("not_ok", "failed: driver: power")
    failed = Event("command.failed", {"id": "4", "name": "self.test", "reason": "timeout"})
    desk.fleet.arrive(record(CAMERA, journal(3, t0=T0 + 120 * S, events=[failed])))
    assert await self_test() == ("not_ok", "failed: timeout")


async def test_a_device_goes_out_over_and_back_and_every_moment_has_one_answer(desk: Desk) -> None:
    first = await given(desk, at=str(T0), vehicle="car-117", shift="early", unit="unit-4")
    desk.now_ms += 60 * S
    held = await answered(await desk.mgr.post(OUT, json={"officer": "4712", "override": WHY}), 409)
    assert held["type"].endswith("held")
    assert first["assignment"] in held["expected"]
    second = await answered(await desk.mgr.post("/v1/devices/cam-7/hand-over", json={"officer": "4712"}))
    desk.now_ms += 60 * S
    await answered(await desk.mgr.post("/v1/devices/cam-7/check-in", json={}))
    assert (await desk.mgr.post("/v1/devices/cam-7/check-in", json={})).status_code == 409

    async def holder(at_ms: int, **known: int) -> list[str]:
        asked = {"from": at_ms, "to": at_ms + 1, **known}
        found = await answered(await desk.mgr.get("/v1/devices/cam-7/assignments", params=asked))
        return [each["officer"] for each in found["assignments"]]

    assert second["from_ms"] == NOW + 60 * S
    assert [await holder(at) for at in (T0 - 1, T0, NOW + 60 * S - 1, NOW + 60 * S, NOW + 120 * S)] == [
        [],
        ["4711"],
        ["4711"],
        ["4712"],
        [],
    ]
    assert await holder(NOW + 60 * S, known_at=NOW) == ["4711"]  # nobody knew yet that it would be handed over
    mine = await answered(await desk.mgr.get("/v1/officers/4711/assignments"))
    assert [(each["device"], each["vehicle"], each["to_ms"]) for each in mine["assignments"]] == [
        ("cam-7", "car-117", NOW + 60 * S)
    ]


async def test_a_correction_needs_a_reason_and_what_it_looked_like_and_is_a_further_row(desk: Desk) -> None:
    made = await given(desk)
    path = f"/v1/assignments/{made['assignment']}"
    seen = await desk.mgr.get(path)
    tag = {"If-Match": seen.headers["ETag"]}
    correction = f"{path}/correction"
    body = {"reason": "typed wrong", "officer": "4712"}
    assert (await desk.mgr.post(correction, json=body)).status_code == 428
    assert (await desk.mgr.post(correction, json={"officer": "4712"}, headers=tag)).status_code == 422
    desk.now_ms += S
    fixed = await answered(await desk.mgr.post(correction, json=body, headers=tag))
    assert (fixed["officer"], fixed["revision"], fixed["reason"]) == ("4712", 2, "typed wrong")
    assert (await desk.mgr.post(correction, json=body, headers=tag)).status_code == 412
    gone = {"reason": "never was", "withdraw": True}
    await answered(await desk.mgr.post(correction, json=gone, headers={"If-Match": '"2"'}))
    history = (await answered(await desk.mgr.get(path)))["revisions"]
    assert [(each["revision"], each["officer"], each["act"]) for each in history] == [
        (1, "4711", "checked_out"),
        (2, "4712", "corrected"),
        (3, "4712", "withdrawn"),
    ]
    assert (await answered(await desk.mgr.get("/v1/assignments")))["assignments"] == []


async def test_who_had_what_is_told_to_who_may_know_it(desk: Desk) -> None:
    made = await given(desk)
    of_officer = "/v1/officers/4711/assignments"
    for path in ("/v1/assignments", "/v1/devices/cam-7/assignments", of_officer):
        assert (await desk.viewer.get(path)).status_code == 403
    assert (await answered(await desk.far.get("/v1/assignments")))["assignments"] == []
    for path in ("/v1/devices/cam-7/assignments", of_officer, f"/v1/assignments/{made['assignment']}"):
        assert (await desk.far.get(path)).status_code == 404
    assert (await desk.far.post(OUT, json={"officer": "4711", "override": WHY})).status_code == 404
    assert "4711" not in (await desk.viewer.get("/v1/devices/cam-7")).text


async def test_the_audit_log_says_that_and_by_whom_and_never_whose(desk: Desk) -> None:
    await given(desk)
    await answered(await desk.mgr.get("/v1/officers/4711/assignments"))
    entries = (await answered(await desk.admin.get("/v1/audit", params={"limit": 1_000})))["entries"]
    told_ = [(each["action"], each["subject"]) for each in entries if each["actor"] == "mgr"]
    assert ("assignment.check_out", "cam-7") in told_
    assert ("officer.read", "") in told_
    assert (await desk.viewer.get("/v1/officers/4711/assignments")).status_code == 403
    refused = (await answered(await desk.admin.get("/v1/audit", params={"limit": 1_000})))["entries"]
    assert ("officer.read", "viewer") not in [(each["action"], each["actor"]) for each in refused]
    assert "4711" not in str([each for each in entries if each["actor"] == "mgr"])


async def test_an_import_enters_what_was_so_and_names_each_fault(desk: Desk) -> None:
    text = (
        "device,begin,end,officer,shift\n"
        "cam-7,2026-01-01T06:00:00Z,2026-01-01T07:00:00Z,4711,early\n"
        "cam-7,2026-01-01T07:00:00Z,2026-01-01T08:00:00Z,4712,late\n"
    )
    path = "/v1/imports/assignments"
    assert (await desk.mgr.post(path, content=text, headers=CSV)).status_code == 403
    tried = await answered(await desk.admin.post(f"{path}?dry_run=true", content=text, headers=CSV))
    assert (tried["created"], tried["created_names"]) == (2, ["cam-7", "cam-7"])
    await answered(await desk.admin.post(path, content=text, headers=CSV))
    again = await answered(await desk.admin.post(path, content=text, headers=CSV))
    assert (again["created"], again["unchanged"]) == (0, 2)
    clash = text.replace("T07:00:00Z,2026-01-01T08", "T06:30:00Z,2026-01-01T08")
    assert (await desk.admin.post(path, content=clash, headers=CSV)).status_code == 409
    bad = await answered(await desk.admin.post(path, content=text.replace("4712", "Ann M"), headers=CSV), 422)
    assert [each["where"] for each in bad["errors"]] == ["line 3"]
    unknown = await answered(await desk.admin.post(path, content=text.replace("cam-7", "cam-9"), headers=CSV), 422)
    assert [each["got"] for each in unknown["errors"]] == ["cam-9"]


async def test_pages_are_all_of_it(desk: Desk) -> None:
    lines = [f"cam-7,2026-01-01T0{n}:00:00Z,2026-01-01T0{n}:30:00Z,{4700 + n}\n" for n in range(5)]
    text = "device,begin,end,officer\n" + "".join(lines)
    await answered(await desk.admin.post("/v1/imports/assignments", content=text, headers=CSV))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await answered(await desk.mgr.get("/v1/assignments", params={"limit": 2, **cursor}))
        seen += [each["officer"] for each in page["assignments"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert seen == ["4700", "4701", "4702", "4703", "4704"]


async def test_readings_of_an_officer_are_cut_to_when_they_had_the_device(desk: Desk) -> None:
    """The camera measures from 0 s to 14 s; the officer has it from 3 s to 8 s, and again from 12 s on."""
    lines = [
        "cam-7,2026-01-01T08:00:00Z,2026-01-01T08:00:03Z,4712\n",
        "cam-7,2026-01-01T08:00:03Z,2026-01-01T08:00:08Z,4711\n",
        "cam-7,2026-01-01T08:00:08Z,2026-01-01T08:00:12Z,4712\n",
        "cam-7,2026-01-01T08:00:12Z,,4711\n",
        "board-8,2026-01-01T08:00:00Z,,4711\n",  # has no such stream
    ]
    text = "device,begin,end,officer\n" + "".join(lines)
    await answered(await desk.admin.post("/v1/imports/assignments", content=text, headers=CSV))
    path = "/v1/officers/4711/series/cpu"

    async def seconds(**asked: Any) -> list[list[int]]:
        found = await answered(await desk.mgr.get(path, params={"from": T0, **asked}))
        return [[(at - T0) // S for at in each["series"]["times_ms"]] for each in found["held"]]

    assert await seconds() == [[3, 4, 5, 6, 7], [12, 13, 14]]
    assert await seconds(to=T0 + 5 * S) == [[3, 4]]
    first = await answered(await desk.mgr.get(path, params={"from": T0, "limit": 1}))
    second = await answered(await desk.mgr.get(path, params={"from": T0, "limit": 1, "cursor": first["next"]}))
    third = await answered(await desk.mgr.get(path, params={"from": T0, "limit": 1, "cursor": second["next"]}))
    assert (len(first["held"]) + len(second["held"]) + len(third["held"]), third["next"]) == (2, None)
    assert (await desk.mgr.get("/v1/officers/4799/series/cpu")).status_code == 404
    assert (await desk.mgr.get(path, params={"fields": "nothing"})).status_code == 422
    assert (await desk.viewer.get(path)).status_code == 403
