"""What is stored is what the API answers."""

import httpx
import pytest

from tests.fleet_server.fleet import BOOT, LIFE, NOW, T0


async def test_devices_come_by_id_and_in_pages(client: httpx.AsyncClient) -> None:
    first = (await client.get("/v1/devices", params={"limit": 1})).json()
    assert [device["device"] for device in first["devices"]] == ["car-7"]
    second = (await client.get("/v1/devices", params={"limit": 1, "cursor": first["next"]})).json()
    assert [device["device"] for device in second["devices"]] == ["room-1"]
    assert second["next"] is None


async def test_a_device_tells_what_is_held_and_what_is_missing(client: httpx.AsyncClient) -> None:
    device = (await client.get("/v1/devices/car-7")).json()
    assert (device["device_class"], device["agent"], device["connected"], device["boot"]) == (
        "host",
        "0.1.0",
        True,
        BOOT,
    )
    assert device["last_record_at"] == "2026-01-01T08:10:00.000Z"
    cpu = next(stream for stream in device["streams"] if stream["stream"] == "cpu")
    # 3 never came, 5 to 8 are proved by the number of the one in quarantine
    assert (cpu["life"], cpu["last"], cpu["held"], cpu["missing"], cpu["quarantined"]) == (LIFE, 9, 3, 5, 1)


async def test_a_device_that_never_spoke_of_itself_has_nulls(client: httpx.AsyncClient) -> None:
    device = (await client.get("/v1/devices/room-1")).json()
    assert (device["last_status_ms"], device["last_status_at"], device["device_class"]) == (None, None, "")


async def test_newest_readings_of_a_device(client: httpx.AsyncClient) -> None:
    (row,) = (await client.get("/v1/devices/car-7/latest")).json()
    assert row == {
        "device": "car-7",
        "stream": "cpu",
        "time_ms": T0 + 19_000,
        "time_at": "2026-01-01T08:00:19.000Z",
        "received_ms": NOW,
        "received_at": "2026-01-01T08:10:00.000Z",
        "values": {"cpu_pct": 44.0, "load_1m": None},
    }


async def test_newest_readings_of_all_in_pages(client: httpx.AsyncClient) -> None:
    seen, cursor = [], None
    while True:
        page = (await client.get("/v1/latest", params={"limit": 1} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(row["device"], row["stream"]) for row in page["latest"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [("car-7", "cpu"), ("room-1", "cpu")]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (str(T0), str(T0 + 10_000)),
        ("2026-01-01T08:00:00Z", "2026-01-01T08:00:10.000Z"),
        ("2026-01-01T16:00:00+08:00", "2026-01-01t08:00:10z"),
    ],
)
async def test_series_between_times_however_they_are_written(client: httpx.AsyncClient, begin: str, end: str) -> None:
    answer = await client.get("/v1/devices/car-7/series/cpu", params={"from": begin, "to": end})
    series = answer.json()
    assert series["times_ms"] == [T0 + 1000 * at for at in range(10)]
    assert series["columns"]["cpu_pct"] == [10.0, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert series["columns"]["load_1m"] == [None] * 10
    assert (series["bucket_ms"], series["rows_total"], series["lows"]) == (0, 10, {})
    assert (series["from_at"], series["to_at"]) == ("2026-01-01T08:00:00.000Z", "2026-01-01T08:00:10.000Z")


async def test_series_of_the_last_hour_of_one_field_in_points(client: httpx.AsyncClient) -> None:
    series = (await client.get("/v1/devices/car-7/series/cpu", params={"points": 60, "fields": "cpu_pct"})).json()
    assert (series["from_ms"], series["to_ms"]) == (NOW - 3_600_000, NOW)
    assert list(series["columns"]) == ["cpu_pct"]
    assert series["bucket_ms"] == 60_000
    assert (series["lows"]["cpu_pct"], series["highs"]["cpu_pct"], series["counts"]["cpu_pct"]) == ([10], [44], [15])


async def test_events_in_pages_though_many_have_one_time(client: httpx.AsyncClient) -> None:
    seen, cursor, pages = [], None, 0
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/devices/car-7/events", params=params)).json()
        seen += [(event["kind"], event["data"]) for event in page["events"]]
        cursor, pages = page["next"], pages + 1
        if cursor is None:
            break
    assert seen == [("agent.start", {"clean": True}), *(("link.up", {"attempts": n}) for n in range(4))]
    assert pages == 3


async def test_gaps_say_why(client: httpx.AsyncClient) -> None:
    gaps = (await client.get("/v1/gaps", params={"device": "car-7"})).json()["gaps"]
    numbered = [(gap["first_seq"], gap["last_seq"], gap["reason"]) for gap in gaps if gap["first_seq"]]
    assert (3, 3, "waiting") in numbered
    assert (9, 9, "quarantined") in numbered


async def test_gaps_of_one_reason(client: httpx.AsyncClient) -> None:
    gaps = (await client.get("/v1/gaps", params={"reason": "quarantined"})).json()["gaps"]
    assert {gap["reason"] for gap in gaps} == {"quarantined"}


async def test_gaps_in_pages_are_all_gaps(client: httpx.AsyncClient) -> None:
    everything = (await client.get("/v1/gaps")).json()["gaps"]
    seen, cursor = [], None
    while True:
        page = (await client.get("/v1/gaps", params={"limit": 1} | ({"cursor": cursor} if cursor else {}))).json()
        seen += page["gaps"]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == everything
    assert len(seen) >= 2


async def test_quarantine_lists_without_bytes_and_gives_them_raw(client: httpx.AsyncClient) -> None:
    page = (await client.get("/v1/quarantine", params={"limit": 1})).json()
    (row,) = page["quarantined"]
    assert (row["device"], row["reason"], row["key"], row["payload_bytes"]) == (
        "car-7",
        "malformed",
        f"cpu/{LIFE}/9",
        8,
    )
    raw = await client.get(f"/v1/quarantine/{row['id']}")
    assert raw.content == b"<script>"
    # what the other side sent must never be shown by a browser as a page
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["x-content-type-options"] == "nosniff"
    rest = (await client.get("/v1/quarantine", params={"cursor": page["next"]})).json()
    assert [each["key"] for each in rest["quarantined"]] == [None]
    assert rest["next"] is None


async def test_facts(client: httpx.AsyncClient) -> None:
    facts = (await client.get("/v1/facts")).json()
    assert (facts["records_stored"], facts["records_quarantined"], facts["connected"]) == (5, 2, True)


async def test_metrics_for_prometheus(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert "fieldfleet_records_stored_total 5.0" in lines
    assert "fieldfleet_devices 2.0" in lines
    assert "fieldfleet_devices_connected 1.0" in lines
    assert "# TYPE fieldfleet_quarantine_bytes gauge" in lines


async def test_health_needs_no_token(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/v1/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_no_answer_is_kept_by_caches(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/devices")).headers["cache-control"] == "no-store"
