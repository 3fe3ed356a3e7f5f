"""What an operator says of who may become a device, and what nobody is told twice."""

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from broker_config.enrolment import EnrollRequest
from fleet_server.adapters.sql import enrolment, org_rows
from fleet_server.adapters.sql import people as sql_people
from fleet_server.adapters.sql import registry as sql_registry
from tests.fleet_server.fleet import NOW, Fleet

HOUR_MS = 3_600_000


async def register(api: httpx.AsyncClient, *devices: str) -> None:
    for device in devices:
        path = f"/v1/devices/{device}/registration"
        said = await api.put(path, json={"device_class": "host"}, headers={"If-None-Match": "*"})
        assert said.status_code == 200, said.text


def enrolled(own: Fleet, code: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    assert own.ports.enrolling is not None
    pem = csr.public_bytes(Encoding.PEM).decode()
    return own.ports.enrolling.enroller.enroll(EnrollRequest(code, pem), source="here").device


async def test_a_claim_tells_its_code_once_with_all_that_an_installer_needs(
    own: Fleet, api: httpx.AsyncClient
) -> None:
    await register(api, "car-20")
    made = (await api.post("/v1/devices/car-20/claims")).json()
    assert made["code"].startswith("ffc_")
    assert made["qr"] == f"https://fleet.example:8471/enroll#{made['code']}"
    assert f"edge-agent enroll --server https://fleet.example:8471 --claim {made['code']}" in made["command"]
    assert (made["device"], made["good"], made["expires_ms"]) == ("car-20", True, NOW + HOUR_MS)
    listed = await api.get("/v1/claims")
    assert made["code"] not in listed.text
    assert [each["claim"] for each in listed.json()["claims"]] == [made["claim"]]
    assert enrolled(own, made["code"]) == "car-20"
    (used,) = (await api.get("/v1/claims", params={"device": "car-20"})).json()["claims"]
    (certificate,) = (await api.get("/v1/devices/car-20/certificates")).json()["certificates"]
    assert (used["good"], used["serial"]) == (False, certificate["serial"])
    assert certificate["state"] == "active"


async def test_a_code_is_not_kept_for_who_repeats_the_request(own: Fleet, api: httpx.AsyncClient) -> None:
    await register(api, "car-20")
    headers = {"Idempotency-Key": "once"}
    first = (await api.post("/v1/devices/car-20/claims", headers=headers)).json()["code"]
    second = (await api.post("/v1/devices/car-20/claims", headers=headers)).json()["code"]
    assert first != second
    assert own.ports.enrolling is not None
    with own.ports.enrolling.store._engine.connect() as connection:  # type: ignore[attr-defined]
        kept = repr(connection.execute(text("SELECT * FROM idempotency")).all())
    assert "ffc_" not in kept
    assert enrolled(own, second) == "car-20"


@pytest.mark.parametrize("expires_s", [59, 86_401, "soon"])
async def test_a_claim_lives_for_a_minute_to_a_day(api: httpx.AsyncClient, expires_s: object) -> None:
    await register(api, "car-20")
    assert (await api.post("/v1/devices/car-20/claims", json={"expires_s": expires_s})).status_code == 422


async def test_only_a_registered_device_is_claimed(api: httpx.AsyncClient) -> None:
    refused = await api.post("/v1/devices/car-99/claims")
    assert refused.status_code == 404
    assert refused.json()["type"].endswith("unknown-registration")


async def test_claims_for_a_file_of_devices_all_or_none(own: Fleet, api: httpx.AsyncClient) -> None:
    await register(api, "car-20", "car-21")
    headers = {"Content-Type": "text/csv"}
    good = b"\xef\xbb\xbfserial;device\r\nA;car-20\r\nB;car-21\r\n"
    made = await api.post("/v1/imports/claims", content=good, headers=headers)
    assert [each["device"] for each in made.json()["claims"]] == ["car-20", "car-21"]
    assert [enrolled(own, each["code"]) for each in made.json()["claims"]] == ["car-20", "car-21"]
    for bad in (
        b"device\ncar-20\ncar-99\n",
        b"device\ncar-20\ncar-20\n",
        b"device\nCar\n",
        b"serial\nA\n",
        b"",
        b"\xff",
    ):
        refused = await api.post("/v1/imports/claims", content=bad, headers=headers)
        assert refused.status_code == 422, bad
    listed = (await api.get("/v1/claims")).json()["claims"]
    assert [each["good"] for each in listed] == [False, False]


async def test_a_claim_is_withdrawn(own: Fleet, api: httpx.AsyncClient) -> None:
    await register(api, "car-20")
    made = (await api.post("/v1/devices/car-20/claims")).json()
    gone = await api.delete(f"/v1/claims/{made['claim']}")
    assert gone.json()["good"] is False
    with pytest.raises(ValueError, match="withdrawn"):
        enrolled(own, made["code"])
    assert (await api.delete("/v1/claims/0123456789")).status_code == 404


async def test_a_revocation_without_a_broker_says_what_is_not_proved(own: Fleet, api: httpx.AsyncClient) -> None:
    await register(api, "car-20")
    nothing = await api.post("/v1/devices/car-20/revoke", json={"reason": "lost"})
    assert nothing.status_code == 409
    enrolled(own, (await api.post("/v1/devices/car-20/claims")).json()["code"])
    done = (await api.post("/v1/devices/car-20/revoke", json={"reason": "lost"})).json()
    assert done["out"] is False
    assert done["certificates"] == 1
    steps = {step["what"]: step["done"] for step in done["steps"]}
    assert steps["the list of revoked devices is written"] is True
    assert steps["the broker is told"] is False
    (certificate,) = (await api.get("/v1/devices/car-20/certificates")).json()["certificates"]
    assert (certificate["state"], certificate["reason"]) == ("revoked", "lost")


async def test_too_many_claims_are_a_conflict(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "CLAIMS_OPEN_MAX", 1)
    await register(api, "car-20", "car-21")
    assert (await api.post("/v1/devices/car-20/claims")).status_code == 201
    for refused in (
        await api.post("/v1/devices/car-21/claims"),
        await api.post("/v1/imports/claims", content=b"device\ncar-21\n", headers={"Content-Type": "text/csv"}),
    ):
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fieldfleet:problem:too-many")


async def test_too_many_nodes_units_and_tokens_are_a_conflict(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_registry, "NODES_MAX", 0)
    monkeypatch.setattr(org_rows, "UNITS_MAX", 0)
    monkeypatch.setattr(sql_people, "TOKENS_MAX", 0)
    new = {"If-None-Match": "*"}
    for refused in (
        await api.put("/v1/org-nodes/hq", json={"kind": "centre", "name": "x"}, headers=new),
        await api.put("/v1/duty-units/u-1", json={"name": "x"}, headers=new),
        await api.post("/v1/tokens", json={"token": "li", "name": "Li", "grants": [{"role": "viewer"}]}),
    ):
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fieldfleet:problem:too-many"), refused.text
