"""What each page says of a fleet."""

import re

from broker_config.twin import ChangeState, Reported
from fleet_server.alerting.view import Alert
from fleet_server.change.layers import LayerKind, LayerName
from fleet_server.evidence.custody import Event
from fleet_server.evidence.facts import Progress
from fleet_server.outbound.happenings import Severity
from fleet_server.standing.measures import COVERAGE
from fleet_server.standing.sample import Sample
from tests.fleet_server.evidence.arrivals import arrival
from tests.fleet_server.fleet import BOOT, NOW, T0
from tests.fleet_server.pages.conftest import Pages

ALERT = Alert("dead-device", Severity.ALARM, T0, "hq/station-7", "car-7", "in_car_terminal", "{device} is away", {})


def plain(html: str) -> str:
    """Without marks, and with single blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


async def test_the_first_page_counts_by_place_and_tells_what_happened(pages: Pages) -> None:
    pages.alerting = [with_values(ALERT, device="car-7")]
    async with pages.browser() as browser:
        text = plain((await browser.get("/")).text)
    assert "Command centre 2" in text
    assert "Station 7 1" in text
    assert "Alarms 1" in text


async def test_a_node_leads_to_its_devices_and_up_again(pages: Pages) -> None:
    async with pages.browser() as browser:
        html = (await browser.get("/nodes/station-7")).text
    assert 'href="/devices/car-7"' in html
    assert 'href="/nodes/hq"' in html
    assert "room-1" not in html


async def test_devices_are_found_by_how_their_id_begins(pages: Pages) -> None:
    async with pages.browser() as browser:
        html = (await browser.get("/devices?begins=roo")).text
        assert "room-1" in html
        assert "car-7" not in html
        assert "There is none." in (await browser.get("/devices?begins=%3Cscript%3E")).text
        assert (await browser.get("/devices?cursor=rubbish")).status_code == 404


async def test_a_device_has_charts_gaps_with_reasons_and_its_journal(pages: Pages) -> None:
    async with pages.browser() as browser:
        html = (await browser.get("/devices/car-7")).text
    assert "<svg" in html
    assert "cpu_pct" in html
    text = plain(html)
    assert "Gaps in this time cpu" in text.replace("Stream Why From To More ", "")
    assert re.search(r"cpu (still on the device|in quarantine|without a reason|lost after its receipt)", text)
    assert "agent.start" in text
    assert "numbers 3 to 3" in text


async def test_a_device_says_where_it_differs_from_what_is_desired(own: Pages) -> None:
    fleet = own.fleet
    name = LayerName(LayerKind.DEVICE, "car-7")
    fleet.composer.put_layer(name, {"keep_alive_s": 45}, expected=0, by="ann")
    aim = fleet.twins.twin("car-7").aim
    assert aim is not None
    said = Reported(1, 1, BOOT, aim.version, aim.version, ChangeState.CURRENT, {"keep_alive_s": 30})
    fleet.twins.report([("car-7", said)], now_ms=NOW)
    async with own.browser() as browser:
        text = plain((await browser.get("/devices/car-7")).text)
    assert "other than desired" in text
    assert "keep_alive_s 45 30 differs" in text


async def test_a_bar_says_how_far_an_upload_is(pages: Pages) -> None:
    pages.moving = [
        Progress("0f" * 16, "car-7", 1_000, 250, "clip.mp4", changed_ms=NOW),
        Progress("1f" * 16, "room-1", 1_000, 0, "whole.mp4", whole=True, changed_ms=NOW),
        Progress("2f" * 16, "room-1", 1_000, 999, "stale.mp4", changed_ms=NOW - 3_600_000),
    ]
    async with pages.browser() as browser:
        html = (await browser.get("/evidence")).text
        assert 'max="1000" value="750"' in html
        text = plain(html)
        assert "75 %" in text
        assert "100 % is read again" in text
        assert "0 % stands still" in text
        assert "whole.mp4" not in (await browser.get("/evidence?device=car-7")).text


async def test_a_piece_tells_its_history_and_looking_at_it_is_no_view(own: Pages) -> None:
    arrived = arrival(data=b"content", device="car-7")
    own.fleet.custody.content.put(b"content")
    own.fleet.custody.pieces.verified(arrived)
    async with own.browser() as browser:
        html = (await browser.get("/evidence")).text
        assert f'href="/evidence/pieces/{arrived.upload}"' in html
        text = plain((await browser.get(f"/evidence/pieces/{arrived.upload}")).text)
        assert "received from the device" in text
        assert "read again and verified" in text
        assert "Get the original" not in text  # an administrator reviews no evidence
    actions = {each.raw for each in own.fleet.custody.keeping.history(arrived.upload, from_number=0, rows_max=9)}
    assert not any(Event.VIEWED.value.encode() in raw for raw in actions)


async def test_alerts_are_told_once_with_those_that_share_a_cause(pages: Pages) -> None:
    away = with_values(ALERT, device="car-7")
    pages.alerting = [away._replace(device="", grouped=("car-7", "car-8"))]
    async with pages.browser() as browser:
        html = (await browser.get("/alerts")).text
        assert plain(html).count("car-7 is away") == 1
        assert "2 devices" in html
        assert "1 open" in html
        pages.alerting = []
        assert "Nothing is wrong." in (await browser.get("/alerts")).text


async def test_coverage_is_of_a_place_with_all_below_it(pages: Pages) -> None:
    pages.standing = [
        Sample(COVERAGE, NOW, (8.0, 6.0, 9.0, 2.0), org="hq/station-7"),
        Sample(COVERAGE, NOW, (2.0, 2.0, 2.0, 0.0), org="hq/station-8"),
    ]
    async with pages.browser() as browser:
        text = plain((await browser.get("/coverage")).text)
        assert "Command centre 10 8 11 2" in text
        assert "80 %" in text
        pages.standing = []
        assert "Nothing is known of it yet." in (await browser.get("/coverage")).text


async def test_what_a_device_says_is_text_and_no_markup(own: Pages) -> None:
    own.alerting = [with_values(ALERT, device="<img src=x onerror=alert(1)>")]
    async with own.browser() as browser:
        for path in ("/alerts", "/devices/car-7"):
            assert "<img src=x" not in (await browser.get(path)).text


def with_values(alert: Alert, **values: str) -> Alert:
    return alert._replace(values=values)


async def test_a_rollout_says_how_far_it_is_and_why_it_is_paused(own: Pages) -> None:
    plan = {
        "name": "say more often",
        "layer": "fleet",
        "patch": {"keep_alive_s": 45},
        "waves": [{"name": "canary", "size": "1"}, {"name": "rest"}],
    }
    async with own.browser() as browser:
        assert "There is none." in (await browser.get("/rollouts")).text
        own_header = {"Origin": "http://127.0.0.1:8470"}
        made = await browser.post("/v1/rollouts", json=plan, headers=own_header)
        assert made.status_code == 201, made.text
        rollout = made.json()["rollout"]["rollout"]
        own.fleet.rolling.approve(rollout, by="bob")
        await browser.post(f"/v1/rollouts/{rollout}/pause", json={"reason": "the night shift"}, headers=own_header)
        assert "say more often" in (await browser.get("/rollouts")).text
        text = plain((await browser.get(f"/rollouts/{rollout}")).text)
    assert "paused" in text
    assert "the night shift" in text
    assert "canary 1" in text
    assert "waits for its turn" in text
