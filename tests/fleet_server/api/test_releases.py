"""Images go to whom this server enrolled, by ranges, and nothing else of the disk does."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fleet_server.api.releases import DOWNLOADS_MAX
from tests.enrolment import Office
from tests.releases import IMAGE, Network, Shown, Stage, desk_in, hashes_of, stage_of
from tests.servers import wait_until

STORED = f"/releases/targets/mcu/dock-2/{hashes_of(IMAGE)}.1.4.0.bin"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, Shown, Network, Path]]:
    with desk_in(tmp_path_factory.mktemp("desk")) as running:
        yield running


@pytest.fixture
def stage(made: tuple[Office, Shown, Network, Path], tmp_path: Path) -> Iterator[Stage]:
    with stage_of(made, tmp_path) as running:
        yield running


@pytest.mark.parametrize("path", [STORED, "/releases/metadata/timestamp.json", "/releases/metadata/1.root.json"])
def test_who_is_not_enrolled_gets_nothing(stage: Stage, path: str) -> None:
    with stage.client() as client:
        assert client.get(path).status_code == 200
        for told in ("", "Bearer x", "Bearer 0123.car-7.00", client.headers["Authorization"][:-1] + "x"):
            answer = client.get(path, headers={"Authorization": told})
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("asked", "status", "data"),
    [
        ("", 200, IMAGE),
        ("bytes=0-9", 206, IMAGE[:10]),
        ("bytes=199990-", 206, IMAGE[-10:]),
        ("bytes=199990-999999", 206, IMAGE[-10:]),
        ("bytes=-5", 206, IMAGE[-5:]),
        ("bytes=200000-", 416, None),
        ("bytes=0-1,5-6", 400, None),  # many small ranges cost more than they bring
        ("bytes=" + "1" * 100, 400, None),
    ],
)
def test_an_image_goes_by_ranges(stage: Stage, asked: str, status: int, data: bytes | None) -> None:
    with stage.client() as client:
        answer = client.get(STORED, headers={"Range": asked} if asked else {})
    assert answer.status_code == status
    if data is not None:
        assert answer.content == data
    if status == 206:
        assert answer.headers["content-range"].endswith(f"/{len(IMAGE)}")


@pytest.mark.parametrize(
    "path",
    [
        "/releases/metadata/timestamp",
        "/releases/metadata/0.root.json",
        "/releases/metadata/..%2flock",
        "/releases/targets/..%2f..%2f..%2fdevice-ca.key",
        "/releases/targets/mcu/dock-2/..%2f..%2f..%2f..%2frepository%2flock",
        "/releases/targets/mcu/dock-2/1.4.0.bin",
        f"/releases/targets/mcu/dock-2/{'0' * 64}.1.4.0.bin",
        "/releases/",
    ],
)
def test_nothing_else_is_there(stage: Stage, path: str) -> None:
    with stage.client() as client:
        assert client.get(path).status_code == 404


def test_every_place_is_given_back(stage: Stage) -> None:
    with stage.client() as client:
        for _ in range(DOWNLOADS_MAX + 1):
            assert client.get(STORED, headers={"Range": "bytes=0-0"}).status_code == 206
        stage.network.cut_after = 0
        for _ in range(DOWNLOADS_MAX + 1):
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(STORED)
        stage.network.cut_after = None
        assert client.get(STORED).content == IMAGE


def test_devices_that_fetch_leave_room_for_who_enrols(stage: Stage) -> None:
    stage.network.hold_after = 1_000
    with stage.client() as client, ExitStack() as under_way:
        answers = [under_way.enter_context(client.stream("GET", STORED)) for _ in range(DOWNLOADS_MAX)]
        coming = [answer.iter_raw() for answer in answers]
        assert [next(each) for each in coming] == [IMAGE[:1_000]] * DOWNLOADS_MAX
        answer = client.get(STORED)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert client.get("/nonce").status_code == 200
    with stage.client() as client:
        wait_until(lambda: client.head(STORED).status_code == 200, "their places are free again")


def test_nothing_of_it_is_written_by_a_device(stage: Stage) -> None:
    with stage.client() as client:
        for method in ("PUT", "POST", "DELETE"):
            assert client.request(method, STORED).status_code == 405
