"""Files over HTTPS, into the same place as over the broker: only for who proves the key, and bounded."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker_config import signing, transfer
from broker_config.enrolment import PUT_BYTES_MAX
from broker_config.limits import CHUNK_BYTES_MIN
from broker_config.transfer import Query, Reject, State, Withdraw
from fleet_server.evidence.docking import SESSION_MS, SessionError, device_of, new_session
from tests.enrolment import office
from tests.fleet_server.api.docked import CAR, Dock, Place, enrolled
from tests.fleet_server.evidence.served import evidence_in


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    dock = Dock()
    (tmp_path / "evidence").mkdir()
    with evidence_in(tmp_path / "evidence") as evidence, office(tmp_path / "office", docking=dock) as running:
        yield Place(running, evidence, dock, enrolled(running))


def said(answer: httpx.Response) -> State | Reject:
    message = transfer.decode_down(answer.content)
    assert isinstance(message, State | Reject), answer.text
    return message


async def served(place: Place, do: Any) -> None:
    async with place.evidence.serving(*place.office.keys.chain()) as service:
        place.dock.service = service
        await asyncio.to_thread(do)


@pytest.mark.server("mosquitto")
async def test_a_file_goes_by_ranges_and_its_receipt_comes_the_same_way(place: Place) -> None:
    file = place.file(40 * CHUNK_BYTES_MIN + 5)

    def send() -> None:
        with place.docked() as client:
            state = said(client.post("/uploads", content=transfer.encode(file.offer)))
            assert isinstance(state, State)
            assert state.missing == ((0, 40),)
            half = file.data[: 20 * CHUNK_BYTES_MIN]
            state = said(client.put(f"/uploads/{file.upload}/chunks/0", content=half))
            assert isinstance(state, State)
            assert state.missing == ((20, 40),)
            client.put(f"/uploads/{file.upload}/chunks/20", content=file.data[20 * CHUNK_BYTES_MIN :])
            for _ in range(100):
                answer = client.get(f"/uploads/{file.upload}")
                if transfer.decode_down(answer.content) is None:
                    break
                asyncio.run(asyncio.sleep(0.1))
            claims = signing.decode_claims(signing.decode_envelope(answer.content))
            assert claims.target == CAR
            (told,) = transfer.decode_receipt(bytes(claims.body)).uploads
            assert (told.upload, told.sha256) == (file.upload, file.manifest.sha256)

    await served(place, send)
    with place.evidence.content().open(file.manifest.sha256) as kept:
        assert kept.read() == file.data


@pytest.mark.server("mosquitto")
async def test_what_does_not_fit_changes_nothing(place: Place) -> None:
    file = place.file(3 * CHUNK_BYTES_MIN)

    def send() -> None:
        with place.docked() as client:
            client.post("/uploads", content=transfer.encode(file.offer))
            for first, data in ((0, b"x"), (3, bytes(CHUNK_BYTES_MIN)), (2, bytes(2 * CHUNK_BYTES_MIN - 1))):
                client.put(f"/uploads/{file.upload}/chunks/{first}", content=data)
            state = said(client.get(f"/uploads/{file.upload}"))
            assert isinstance(state, State)
            assert state.missing == ((0, 1),)  # the last of them had one chunk of the right size
            too_much = client.put(f"/uploads/{file.upload}/chunks/0", content=bytes(PUT_BYTES_MAX + 1))
            assert too_much.status_code == 413
            assert client.post("/uploads", content=b"{}").status_code == 422
            assert client.get("/uploads/..%2f..%2fetc").status_code == 404
            unknown = said(client.post("/uploads", content=transfer.encode(Query(1, "0" * 32))))
            assert isinstance(unknown, Reject)
            withdrawn = client.post("/uploads", content=transfer.encode(Withdraw(1, file.upload)))
            assert withdrawn.status_code == 202

    await served(place, send)


def test_without_the_devices_key_nothing_is_taken(place: Place) -> None:
    file = place.file(CHUNK_BYTES_MIN)
    with place.client() as client:
        assert place.session(client, key=ec.generate_private_key(ec.SECP256R1())).status_code == 403
        for headers in ({}, {"Authorization": "Bearer 0.car-7.0"}):
            answer = client.put(f"/uploads/{file.upload}/chunks/0", content=file.data, headers=headers)
            assert answer.status_code == 401
            assert client.post("/uploads", content=b"{}", headers=headers).status_code == 401


def test_a_server_that_does_not_take_files_yet_says_so(place: Place) -> None:
    with place.docked() as client:
        answer = client.post("/uploads", content=transfer.encode(place.file(CHUNK_BYTES_MIN).offer))
    assert answer.status_code == 503


def test_a_session_is_its_devices_for_its_time() -> None:
    session = new_session(b"secret", CAR, now_ms=1_000)
    assert device_of(b"secret", session, now_ms=1_000 + SESSION_MS - 1) == CAR
    for secret, told, at_ms in (
        (b"other", session, 1_000),
        (b"secret", session, 1_000 + SESSION_MS),
        (b"secret", session.replace("car-7", "car-8"), 1_000),
        (b"secret", "f" + session[1:], 1_000),
        (b"secret", "", 1_000),
        (b"secret", "ü", 1_000),
    ):
        with pytest.raises(SessionError):
            device_of(secret, told, now_ms=at_ms)
