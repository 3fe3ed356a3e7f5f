"""A site without dashboards hears all the same, by a webhook and a followed feed, from programs as they are started.

Mosquitto, ``fleet-server``, ``edge-agent``, ``fieldfleet``; the server is stopped, and killed, while it tells.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

from fleet_server.site import TOKEN_FILE
from tests.commands import fieldfleet
from tests.faults.carry_out import Faults
from tests.faults.rig import DEVICE, Rig
from tests.fleet_server.outbound.receiver import Receiver, receiving
from tests.servers import wait_until

pytestmark = pytest.mark.server("mosquitto")

STOP_S_MAX: Final = 10.0
SETTLE_S: Final = 3
TOLD_S_MAX: Final = 40.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as running:
        with running.server_file.open("a", encoding="utf-8") as file:
            file.write(f"\n[outbound]\nsettle_s = {SETTLE_S}\n")
        running.run()
        yield running


def happened(rig: Rig, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(rig.api.get("/v1/happenings?limit=1000")))["happenings"]
    return [each for each in found[::-1] if each["kind"] == kind]


def told(rig: Rig, kind: str, count: int) -> None:
    rig.wait(lambda: len(happened(rig, kind)) >= count, kind, rig.server, seconds_max=TOLD_S_MAX)
    assert [each["device"] for each in happened(rig, kind)] == [DEVICE] * count


@contextmanager
def receiver_in_a_thread() -> Iterator[Receiver]:
    """It learns its secret once the webhook is made."""
    made: list[Receiver] = []
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with receiving("") as receiver:
            made.append(receiver)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    wait_until(lambda: bool(made), "it receives")
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_what_happens_is_told_over_a_stop_and_a_kill(rig: Rig) -> None:
    told(rig, "device.connected", 1)  # a new site's first device
    with receiver_in_a_thread() as receiver:
        webhook = json.loads(fieldfleet(rig.site_directory, "webhooks", "add", receiver.url, "--json"))
        receiver.secret = webhook["secret"]
        assert "took the test: 204" in fieldfleet(rig.site_directory, "webhooks", "test", webhook["id"])

        Faults(rig).stop_agent()
        told(rig, "device.disconnected", 1)
        lines = fieldfleet(
            rig.site_directory, "watch", "--after", "0", "--device", DEVICE, "--count", "2", "--json"
        ).splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["device.connected", "device.disconnected"]

        rig.server.kill()
        rig.agent.start()
        rig.start_server()
        told(rig, "device.connected", 2)
        assert rig.server.stop() == 0
        rig.start_server()
        Faults(rig).stop_agent()
        told(rig, "device.disconnected", 2)
        rig.agent.start()
        told(rig, "device.connected", 3)
        kinds = {f"io.fieldfleet.{kind}" for kind in ("webhook.test", "device.connected", "device.disconnected")}
        wait_until(lambda: len(_once(receiver, kinds)) == 5, "all are told", TOLD_S_MAX)
        assert receiver.faults == []
        recorded = [
            each["id"] for kind in ("device.connected", "device.disconnected") for each in happened(rig, kind)
        ]
        assert {int(id_) for id_ in _once(receiver, kinds)} >= set(recorded[1:])


def _once(receiver: Receiver, kinds: set[str]) -> set[str]:
    return {str(got.data["id"]) for got in list(receiver.kept.values()) if got.type in kinds}


def test_a_stop_ends_who_follows(rig: Rig) -> None:
    rig.wait(lambda: rig.api.linked, "the server serves", rig.server)
    token = (rig.site_directory / TOKEN_FILE).read_text("ascii").strip()
    url = f"http://127.0.0.1:{rig.site.api_port}/v1/changes"
    with httpx.stream("GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=TOLD_S_MAX) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        begun = time.monotonic()
        assert rig.server.stop() == 0
        for _ in lines:
            pass
        assert time.monotonic() - begun < STOP_S_MAX
    rig.start_server()
