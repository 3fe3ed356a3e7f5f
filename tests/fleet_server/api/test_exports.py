"""A bundle over the API is one that a stranger finds to be right, and nobody gets one without a trace."""

import argparse
import base64
import hashlib
import io
import json
import random
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import FastAPI

from broker_config import signing, transfer
from fleet_server.access.auditor import BEGIN, own_fact
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.access.timestamps import Stamper
from fleet_server.adapters.tsa import HttpAuthority
from fleet_server.api.app import create_app
from fleet_server.evidence import exporting, verify
from fleet_server.evidence.pieces import UnknownPieceError
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.evidence.bundles import WITNESS, Camera, Site
from tests.fleet_server.evidence.rig import Custody
from tests.fleet_server.fleet import NOW, Fleet, told
from tests.tsa import tsa

PATH = "/v1/evidence/exports"


class Desk:
    """Ann, who reviews evidence, what there is, and the devices' root."""

    def __init__(self, fleet: Fleet, app: FastAPI, ann: httpx.AsyncClient) -> None:
        self.fleet, self.app, self.ann = fleet, app, ann
        self.custody: Custody = fleet.custody
        self.site = Site()
        self.rng = random.Random(1)

    def recorded(self, name: str = "r-1", segments: int = 2, *, journal: bool = True) -> list[str]:
        """A recording that has arrived; its pieces."""
        camera = Camera(self.site)
        made = camera.recorded(self.custody.content, name, segments, size=30_000, rng=self.rng)
        if journal:
            self.custody.journals.held[camera.device, camera.life] = camera.batches
        for each in made:
            self.custody.pieces.verified(each)
        return [each.upload for each in made]

    async def export(self, **body: Any) -> bytes:
        made = await self.asked(body)
        answer = await self.ann.get(f"{PATH}/{made['export']}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/zip"
        return answer.content

    async def asked(self, body: dict[str, Any], status: int = 201) -> Any:
        answer = await self.ann.post(PATH, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def seen(self) -> str:
        """The log's checkpoint now, as a witness signed it."""
        note = self.custody.auditor.sign()
        assert note is not None
        return WITNESS.cosign(note, at_s=NOW // 1000)

    def verdict(self, data: bytes, **other: Any) -> dict[str, str]:
        """Claim -> result; of several recordings the worst."""
        roots = x509.load_pem_x509_certificates(self.site.root.certificate_pem)
        keys = {
            "root": roots,
            "log_key": [SIGNER.verifier.text()],
            "witness": [WITNESS.verifier.text()],
            "tsa_ca": [],
        }
        found: dict[str, str] = {}
        for _, lines in verify.verdicts(io.BytesIO(data), argparse.Namespace(**{**keys, **other})):
            for result, claim, detail in lines:
                assert result != verify.FAIL, (claim, detail)
                found[claim] = result if found.get(claim, verify.PASS) == verify.PASS else found[claim]
        return found


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return told(tmp_path / "store.db")


@pytest.fixture
async def desk(fleet: Fleet) -> AsyncIterator[Desk]:
    app = create_app(fleet.ports, clock=lambda: NOW)
    async with client_of(app, token=secret(fleet, "ann", Role.EVIDENCE_REVIEWER)) as ann:
        yield Desk(fleet, app, ann)


def secret(fleet: Fleet, name: str, role: Role, node: str | None = None) -> str:
    grants = [NodeGrant(role, node)]
    return fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=NOW).secret


async def test_a_bundle_of_a_recording_holds_in_every_claim(desk: Desk) -> None:
    pieces = desk.recorded(segments=3)
    data = await desk.export(recording="r-1", witnessed=[desk.seen()])
    assert set(desk.verdict(data).values()) == {verify.PASS}
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for piece in pieces:
            assert f"pieces/{piece}/original" in file.namelist()
            assert piece in file.read("report.txt").decode()
            assert piece in file.read("report.html").decode()


async def test_without_a_witness_and_a_journal_that_is_said(desk: Desk) -> None:
    desk.recorded(journal=False)
    found = desk.verdict(await desk.export(recording="r-1"))
    assert {claim for claim, result in found.items() if result == verify.UNCHECKED} == {
        "complete",
        "existed by then",
        "log not rewritten",
    }


async def test_signed_receipts_of_every_piece_go_along(desk: Desk) -> None:
    """As who has only the key that ``trust.json`` names checks them."""
    pieces = desk.recorded(segments=3)
    with zipfile.ZipFile(io.BytesIO(await desk.export(recording="r-1"))) as file:
        envelope = signing.decode_envelope(file.read("receipts/1.dsse.json"))
        (named,) = json.loads(file.read("trust.json"))["signers"]
        originals = {piece: hashlib.sha256(file.read(f"pieces/{piece}/original")).hexdigest() for piece in pieces}
    keyid, algorithm, public = named.split(" ")
    assert (envelope.signatures[0].keyid, algorithm) == (keyid, signing.ED25519)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    key.verify(envelope.signatures[0].sig, signing.pre_authentication(envelope.payload_type, envelope.payload))
    claims = signing.decode_claims(envelope)
    receipt = transfer.decode_receipt(bytes(claims.body))
    assert {each.upload: each.sha256 for each in receipt.uploads} == originals


async def test_nothing_is_exported_while_receipts_cannot_be_signed(desk: Desk) -> None:
    (piece,) = desk.recorded(segments=1)
    desk.custody.signer.down = True
    await desk.asked({"pieces": [piece]}, 503)
    assert desk.custody.told(piece) == ["received", "verified"]


@pytest.mark.server("openssl")
async def test_a_time_stamp_of_the_log_goes_along(desk: Desk, tmp_path: Path) -> None:
    desk.recorded()
    with tsa(tmp_path) as running:
        authority = HttpAuthority(running.url)
        Stamper(desk.custody.auditor, desk.custody.timestamps, authority, now_ms=lambda: NOW).look()
        roots = x509.load_pem_x509_certificates(running.root.read_bytes())
    found = desk.verdict(await desk.export(recording="r-1"), witness=[], tsa_ca=roots)
    assert found["existed by then"] == verify.PASS


async def test_that_it_was_exported_is_in_the_log_before_its_first_byte(desk: Desk) -> None:
    pieces = desk.recorded()
    made = await desk.asked({"pieces": pieces[:1]})
    (*_, last) = desk.custody.events(pieces[0])
    assert (last.action, last.actor, last.data["export"]) == ("evidence.exported", "ann", made["export"])
    assert desk.custody.told(pieces[1]) == ["received", "verified"]
    assert len(last.data["content_sha256"]) == 64


async def test_what_happens_after_an_export_is_not_in_it(desk: Desk) -> None:
    (piece,) = desk.recorded(segments=1)
    made = await desk.asked({"pieces": [piece], "witnessed": [desk.seen()]})
    desk.custody.keeping.hold(piece, "case-1", "seen", by="ann", now_ms=NOW)
    first = (await desk.ann.get(f"{PATH}/{made['export']}")).content
    assert set(desk.verdict(first).values()) == {verify.PASS}
    assert (await desk.ann.get(f"{PATH}/{made['export']}")).content == first, "the same export is the same bytes"
    again = await desk.export(pieces=[piece], witnessed=[desk.seen()])
    assert set(desk.verdict(again).values()) == {verify.PASS}
    assert desk.custody.told(piece)[2:] == ["exported", "held", "exported"]


async def test_a_history_in_two_logs_is_proved_in_both(desk: Desk) -> None:
    (piece,) = desk.recorded(segments=1)
    seen = desk.seen()
    desk.custody.auditor.store.begin(own_fact(BEGIN, "another", at_ms=NOW))
    desk.custody.auditor.sign()
    desk.custody.keeping.hold(piece, "case-1", "seen", by="ann", now_ms=NOW)
    data = await desk.export(pieces=[piece], witnessed=[seen])
    assert set(desk.verdict(data).values()) == {verify.PASS}
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert len({name.split("/")[1] for name in file.namelist() if name.startswith("log/")}) == 2


async def test_a_time_of_a_device_is_a_bundle_too(desk: Desk) -> None:
    desk.recorded("r-1")
    desk.recorded("r-2", segments=1)
    piece = desk.custody.pieces.piece(desk.recorded("r-3", segments=1)[0])
    assert piece is not None
    made = await desk.asked({"device": "cam-7", "from": str(piece.begin_ms), "to": str(piece.begin_ms + 1)})
    assert made["pieces"] == 3
    assert (await desk.asked({"device": "cam-7"}))["pieces"] == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"pieces": [], "witnessed": []}, 422),
        ({"pieces": ["0" * 32], "recording": "r-1"}, 422),
        ({"pieces": ["0" * 32], "from": "5"}, 422),
        ({"from": "5", "to": "6"}, 422),
        ({"pieces": ["../../etc"]}, 422),
        ({"pieces": ["0" * 32]}, 404),
        ({"recording": "no-such"}, 409),
        ({"node": "no-such"}, 422),
        ({"recording": "r-1", "witnessed": ["x"]}, 409),
    ],
)
async def test_what_cannot_be_exported_says_why_and_leaves_no_trace(
    desk: Desk, body: dict[str, Any], status: int
) -> None:
    (piece,) = desk.recorded(segments=1)
    await desk.asked(body, status)
    assert desk.custody.told(piece) == ["received", "verified"]


async def test_nothing_is_exported_that_is_gone_or_cannot_be_entered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (piece,) = desk.recorded(segments=1)
    found = desk.custody.pieces.piece(piece)
    assert found is not None
    path = desk.custody.content.path(found.sha256)
    data = path.read_bytes()
    path.unlink()
    assert (await desk.asked({"pieces": [piece]}, 409))["type"].endswith("content-missing")
    path.write_bytes(data)
    monkeypatch.setattr(desk.custody.auditor, "_broken", (desk.custody.auditor.facts().log, "changed"))
    await desk.asked({"pieces": [piece]}, 503)
    assert desk.custody.told(piece) == ["received", "verified"]


async def test_a_damaged_content_is_not_given_out_as_whole(desk: Desk) -> None:
    (piece,) = desk.recorded(segments=1)
    found = desk.custody.pieces.piece(piece)
    assert found is not None
    made = await desk.asked({"pieces": [piece]})
    path = desk.custody.content.path(found.sha256)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert hashlib.sha256(path.read_bytes()).hexdigest() != found.sha256
    answer = await desk.ann.get(f"{PATH}/{made['export']}")
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(answer.content))


async def test_nobody_else_takes_it_and_not_for_ever(desk: Desk, fleet: Fleet) -> None:
    (piece,) = desk.recorded(segments=1)
    made = await desk.asked({"pieces": [piece]})
    async with (
        client_of(desk.app, token=secret(fleet, "ben", Role.EVIDENCE_REVIEWER)) as ben,
        client_of(desk.app) as admin,
    ):
        assert (await ben.get(f"{PATH}/{made['export']}")).status_code == 404
        assert (await admin.get(f"{PATH}/{made['export']}")).status_code == 403
        assert (await admin.post(PATH, json={"pieces": [piece]})).status_code == 403
    later = create_app(fleet.ports, clock=lambda: NOW)
    async with client_of(later, token=secret(fleet, "ann2", Role.EVIDENCE_REVIEWER)) as other:
        assert (await other.get(f"{PATH}/{made['export']}")).status_code == 404


async def test_an_export_waits_an_hour_and_only_so_many_do(desk: Desk) -> None:
    (piece,) = desk.recorded(segments=1)
    sources = desk.custody.ports().sources
    exporter = exporting.Exporter(
        desk.custody.pieces, desk.custody.keeping, desk.custody.content, desk.custody.auditor, sources
    )
    wanted = exporting.Wanted([piece], None)
    made = [exporter.ask(wanted, by="ann", now_ms=NOW + number) for number in range(exporting.WAITING_MAX + 1)]
    assert exporter.waiting(made[-1].export, by="ann", now_ms=NOW).export == made[-1].export
    for export, now_ms in ((made[0], NOW), (made[1], NOW + 1 + exporting.WAIT_MS + 1)):
        with pytest.raises(UnknownPieceError):
            exporter.waiting(export.export, by="ann", now_ms=now_ms)
