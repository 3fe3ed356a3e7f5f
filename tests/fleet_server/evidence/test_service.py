"""Files over a real Mosquitto: server, broker and link may go at any moment."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker_config import limits, signing
from broker_config.ids import DeviceId
from broker_config.signing import Kind, pre_authentication
from broker_config.transfer import StorageClass
from tests.fleet_server.evidence.served import CHUNK, Evidence, evidence_in
from tests.fleet_server.telemetry.service_rig import until

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    with evidence_in(tmp_path) as running:
        yield running


CAMERA = DeviceId("cam-7")
WAIT_S = 30


async def test_files_are_kept_and_their_receipt_is_signed_for_their_device(evidence: Evidence) -> None:
    files = [evidence.file(CAMERA, 20 * CHUNK + n, seed=n) for n in range(12)]
    device = evidence.device(CAMERA, *files)
    async with evidence.serving() as service:
        await asyncio.wait_for(device.run(), WAIT_S)
        facts = service.facts()
    for file in files:
        with evidence.content().open(file.manifest.sha256) as kept:
            assert kept.read() == file.data
        told = device.receipts[file.upload]
        assert (told.sha256, told.size, told.storage_class) == (
            file.manifest.sha256,
            len(file.data),
            StorageClass.LOGGED,
        )
        envelope = signing.decode_envelope(device.envelopes[file.upload])
        claims = signing.decode_claims(envelope)
        assert (claims.kind, claims.target, claims.site) == (Kind.EVIDENCE_RECEIPT, CAMERA, evidence.broker.site)
        signed = pre_authentication(envelope.payload_type, envelope.payload)
        Ed25519PublicKey.from_public_bytes(evidence.key.public).verify(envelope.signatures[0].sig, signed)
    assert sorted(evidence.register.entered()) == sorted(file.upload for file in files)
    assert (facts.count("kept"), facts.open_uploads, facts.count("malformed")) == (12, 0, 0)
    assert len(evidence.signer.asked) < 12  # several in one signature


async def test_a_server_that_goes_and_comes_back_goes_on(evidence: Evidence) -> None:
    file = evidence.file(CAMERA, 600 * CHUNK)
    device = evidence.device(CAMERA, file)
    running = asyncio.create_task(device.run())
    async with evidence.serving() as service:
        await until(lambda: service.facts().count("chunks") > 20, "some chunks")
    assert device.receipts == {}
    async with evidence.serving() as service:
        await asyncio.wait_for(running, WAIT_S)
        assert service.facts().count("chunks") < 600 - 20
    with evidence.content().open(file.manifest.sha256) as kept:
        assert kept.read() == file.data


async def test_a_broker_that_forgets_everything_costs_a_window(evidence: Evidence) -> None:
    file = evidence.file(CAMERA, 900 * CHUNK)
    device = evidence.device(CAMERA, file)
    running = asyncio.create_task(device.run())
    async with evidence.serving() as service:
        await until(lambda: service.facts().count("chunks") > 20, "some chunks")
        window_bytes = limits.UPLOAD_WINDOW_BYTES_MAX
        evidence.broker.kill()
        evidence.broker.wipe()
        await asyncio.to_thread(evidence.broker.start)
        await asyncio.wait_for(running, WAIT_S)
    assert device.sent_bytes <= len(file.data) + window_bytes
    with evidence.content().open(file.manifest.sha256) as kept:
        assert kept.read() == file.data


async def test_without_a_signer_there_is_no_receipt_until_it_is_back(evidence: Evidence) -> None:
    evidence.signer.down = True
    file = evidence.file(CAMERA, 5 * CHUNK)
    device = evidence.device(CAMERA, file)
    async with evidence.serving() as service:
        running = asyncio.create_task(device.run())
        await until(lambda: service.facts().sign_failures > 0, "the signer was asked")
        assert device.receipts == {}
        evidence.signer.down = False
        await asyncio.wait_for(running, WAIT_S)
    assert file.upload in device.receipts


async def test_many_devices_at_once_all_get_through(evidence: Evidence) -> None:
    names = [DeviceId(f"cam-{n}") for n in range(12)]
    devices = [evidence.device(name, evidence.file(name, 40 * CHUNK, seed=n)) for n, name in enumerate(names)]
    async with evidence.serving():
        await asyncio.wait_for(asyncio.gather(*(device.run() for device in devices)), 2 * WAIT_S)
    assert all(len(device.receipts) == 1 for device in devices)
