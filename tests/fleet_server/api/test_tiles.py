"""The log in the C2SP formats over the API: a stranger makes root and proof from what is served."""

import base64

import httpx
import pytest

from broker_config import merkle
from fleet_server.access import notes, tlog
from tests.fleet_server.access.drafts import SIGNER, draft
from tests.fleet_server.fleet import Fleet


@pytest.fixture
def prefix(fleet: Fleet) -> str:
    for number in range(300):
        fleet.auditor.record(draft(number))
    fleet.auditor.sign()
    return f"/v1/audit/logs/{fleet.auditor.facts().log}"


async def test_a_client_of_tiles_finds_the_root_that_was_signed(client: httpx.AsyncClient, prefix: str) -> None:
    note = (await client.get(f"{prefix}/checkpoint")).text
    notes.opened(note, SIGNER.verifier)
    checkpoint = notes.checkpoint_of(note)
    full, width = divmod(checkpoint.size, 256)
    frontier, index = tlog.Frontier(), 0
    for number in range(full + 1):
        place = f"{number:03}" + (f".p/{width}" if number == full else "")
        bundle = (await client.get(f"{prefix}/tile/entries/{place}")).content
        tile = (await client.get(f"{prefix}/tile/0/{place}")).content
        hashes = []
        while bundle:
            length = int.from_bytes(bundle[:2])
            hashes.append(merkle.leaf_hash(bundle[2 : 2 + length]))
            bundle = bundle[2 + length :]
        assert b"".join(hashes) == tile
        for each in hashes:
            frontier.append(each)
            index += 1
    assert index == checkpoint.size
    assert frontier.root() == checkpoint.root
    above = (await client.get(f"{prefix}/tile/1/000.p/{full}")).content
    assert len(above) == 32 * full


async def test_a_proof_is_served_as_a_file(client: httpx.AsyncClient, prefix: str) -> None:
    text = (await client.get(f"{prefix}/proofs/17")).text
    above, _, note = text.partition("\n\n")
    kind, index, *hashes = above.split("\n")
    assert (kind, index) == ("c2sp.org/tlog-proof@v1", "index 17")
    checkpoint = notes.checkpoint_of(note)
    leaf = (await client.get(f"{prefix}/tile/0/000")).content[17 * 32 : 18 * 32]
    proof = [base64.b64decode(each) for each in hashes]
    assert tlog.includes(17, checkpoint.size, leaf, proof, checkpoint.root)


async def test_what_is_not_signed_yet_is_not_served(client: httpx.AsyncClient, fleet: Fleet, prefix: str) -> None:
    size = notes.checkpoint_of((await client.get(f"{prefix}/checkpoint")).text).size
    fleet.auditor.record(draft(1))
    place = f"{size // 256:03}.p/{size % 256 + 1}"
    assert (await client.get(f"{prefix}/tile/0/{place}")).status_code == 404
    assert (await client.get(f"{prefix}/proofs/{size}")).status_code == 404
    assert (await client.get(f"{prefix}/tile/0/x000/001")).status_code == 422
    assert (await client.get("/v1/audit/logs/1/checkpoint")).status_code == 404
