"""Uploads as files: manifests, messages, chunks and receipts, for an agent in another language.

``manifest.json``: the bytes that a device signs, the upload that follows from them, what is signed over them, and a
signature with the key that made it. ``upload.json``, ``upload_answer.json``, ``evidence_receipt.json``: messages as
they go over the broker. ``chunk.json``: chunks in hex, also such as must be refused. ``merkle.json``: trees.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker_config import manifest, merkle, signing, transfer
from broker_config.device_classes import Priority
from broker_config.ids import device_id
from broker_config.manifest import JournalRange, Manifest, Moment, Segment
from broker_config.signing import Envelope, Kind, Signature
from broker_config.topics import Down, Up, down, parse_up, up
from broker_config.transfer import (
    BadTransferError,
    Chunk,
    Code,
    EvidenceReceipt,
    Leaves,
    Offer,
    Query,
    Receipted,
    Reject,
    State,
    StorageClass,
    Withdraw,
)
from tests.orders import claims, envelope

VECTORS: Final = Path(__file__).parent / "vectors"
CAR: Final = device_id("car-7")
KEY: Final = ec.derive_private_key(0xF1E1D, ec.SECP256R1())
SERIAL: Final = 0xA5A5
DATA: Final = bytes(n % 251 for n in range(40_000))
CHUNK_BYTES: Final = 16_384
LEAVES: Final = [merkle.leaf_hash(DATA[at : at + CHUNK_BYTES]) for at in range(0, len(DATA), CHUNK_BYTES)]
AT: Final = Moment(1_767_225_600_000, 40, "ntp", "fedcba9876543210", 48_211)
JOURNAL: Final = JournalRange("0123456789abcdef", 17, 19)

Golden = Callable[[Path, str], None]


def certificate() -> str:
    """Always the same bytes: the signature's randomness comes from what it signs."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CAR)])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(SERIAL)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=30))
        .sign(KEY, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return made.public_bytes(Encoding.PEM).decode("ascii")


MANIFESTS: Final = {
    "a segment that closes its recording": Manifest(
        1,
        CAR,
        "recordings",
        "front_00002.mp4",
        "video/mp4",
        len(DATA),
        hashlib.sha256(DATA).hexdigest(),
        CHUNK_BYTES,
        merkle.root_of(LEAVES).hex(),
        AT,
        msgspec.structs.replace(AT, t_ms=AT.t_ms + 60_000, mono=AT.mono + 60_000),
        JOURNAL,
        Segment("front", 2, "ab" * 32, last=True, trigger="ignition", reason="engine off", gap_ms=33),
        "officer-12",
    ),
    "a file that stands alone, of one byte, before anybody set the clock": Manifest(
        1,
        CAR,
        "logs",
        "agent.log",
        "text/plain",
        1,
        hashlib.sha256(b"x").hexdigest(),
        131_072,
        merkle.leaf_hash(b"x").hex(),
        Moment(0, 0, "none", "fedcba9876543210", 1),
        Moment(1, 0, "none", "fedcba9876543210", 2),
        JOURNAL,
    ),
    "a file that signs the end of its journal, too": Manifest(
        1,
        CAR,
        "logs",
        "agent.log",
        "text/plain",
        1,
        hashlib.sha256(b"x").hexdigest(),
        131_072,
        merkle.leaf_hash(b"x").hex(),
        AT,
        AT,
        msgspec.structs.replace(JOURNAL, head="ef" * 32),
    ),
}


def signed(payload: bytes) -> Envelope:
    data = signing.pre_authentication(manifest.PAYLOAD_TYPE, payload)
    signature = KEY.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return Envelope(payload, manifest.PAYLOAD_TYPE, (Signature(f"{SERIAL:032x}", signature),))


PAYLOADS: Final = {name: manifest.encode(each) for name, each in MANIFESTS.items()}
UPLOAD: Final = manifest.upload_id(next(iter(PAYLOADS.values())))
UP: Final[dict[str, transfer.UpMessage]] = {
    "an offer": Offer(1, signed(next(iter(PAYLOADS.values()))), certificate(), Priority.FLAGGED),
    "how far is it": Query(1, UPLOAD),
    "hashes": Leaves(1, UPLOAD, 0, b"".join(LEAVES)),
    "the file cannot be read any more": Withdraw(1, UPLOAD, "Input/output error"),
}
ANSWERS: Final[dict[str, transfer.DownMessage]] = {
    "nothing is here yet": State(1, UPLOAD, ((0, 2),), 131_072),
    "some chunks are missing, and more": State(1, UPLOAD, ((0, 0), (2, 2)), 32_768, more=True),
    "all is here": State(1, UPLOAD, (), 0, again_s=2),
    "a pause": State(1, UPLOAD, ((1, 1),), 0, again_s=5),
    "the hashes are wanted": State(1, UPLOAD, (), 0, again_s=1, leaves=True),
    **{f"not taken: {code}": Reject(1, UPLOAD, code, 0 if code is Code.SIZE else 60, "why") for code in Code},
}
RECEIPTS: Final = {
    "one file, in the custody log": EvidenceReceipt(
        1, (Receipted(UPLOAD, "cd" * 32, 40_000, StorageClass.LOGGED, 1_767_225_600_000, 12),)
    ),
    "two, of which one is in no log yet": EvidenceReceipt(
        1,
        (
            Receipted(UPLOAD, "cd" * 32, 40_000, StorageClass.REPLICATED, 1_767_225_600_000, 12),
            Receipted("0" * 32, "ef" * 32, 1, StorageClass.STORED),
        ),
    ),
}
CHUNKS: Final = {
    "the first": transfer.encode_chunk(Chunk(UPLOAD, 0, DATA[:48])),
    "a later one, of one byte": transfer.encode_chunk(Chunk(UPLOAD, 70_000, b"\0")),
}


def spoiled(at: int, value: int) -> bytes:
    chunk = bytearray(CHUNKS["the first"])
    chunk[at] = value
    return bytes(chunk)


BAD_CHUNKS: Final = {
    "another magic": spoiled(0, 0),
    "another version": spoiled(2, 2),
    "a flag": spoiled(3, 1),
    "an upload that the checksum does not cover": spoiled(4, 0),
    "another number": spoiled(23, 1),
    "another length": spoiled(27, 47),
    "another checksum": spoiled(31, CHUNKS["the first"][31] ^ 1),
    "other data": spoiled(40, 255),
    "no data": CHUNKS["the first"][: transfer.HEADER_BYTES],
    "cut": CHUNKS["the first"][:-1],
}


def text_of(value: object) -> str:
    return json.dumps(json.loads(msgspec.json.encode(value)), indent=2, ensure_ascii=False) + "\n"


def test_manifests_are_in_the_vectors_byte_for_byte(golden: Golden) -> None:
    table = {
        "payload_type": manifest.PAYLOAD_TYPE,
        "private_key": f"{KEY.private_numbers().private_value:064x}",
        "public_key": KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
        "certificate": certificate(),
        "manifests": [
            {
                "name": name,
                "payload": payload.decode(),
                "upload": manifest.upload_id(payload),
                "digest": manifest.digest(payload),
                "signed": signing.pre_authentication(manifest.PAYLOAD_TYPE, payload).decode(),
                "envelope": signed(payload),
            }
            for name, payload in PAYLOADS.items()
        ],
    }
    golden(VECTORS / "manifest.json", text_of(table))


def test_what_devices_say_is_in_the_vectors_byte_for_byte(golden: Golden) -> None:
    rows = [
        {"name": name, "topic": up(CAR, Up.UPLOAD), "value": each, "payload": transfer.encode(each).decode()}
        for name, each in UP.items()
    ]
    golden(VECTORS / "upload.json", text_of(rows))


def test_what_devices_are_told_is_in_the_vectors_byte_for_byte(golden: Golden) -> None:
    rows = [
        {"name": name, "topic": down(CAR, Down.UPLOAD), "value": each, "payload": transfer.encode(each).decode()}
        for name, each in ANSWERS.items()
    ]
    golden(VECTORS / "upload_answer.json", text_of(rows))


def test_receipts_are_in_the_vectors_as_signed_orders(golden: Golden) -> None:
    rows = []
    for name, each in RECEIPTS.items():
        order = envelope(claims(each, kind=Kind.EVIDENCE_RECEIPT))
        rows.append(
            {
                "name": name,
                "topic": down(CAR, Down.UPLOAD),
                "value": each,
                "claims": order.payload.decode(),
                "payload": signing.encode(order).decode(),
            }
        )
    golden(VECTORS / "evidence_receipt.json", text_of(rows))


def test_chunks_are_in_the_vectors_byte_for_byte(golden: Golden) -> None:
    table = {
        "topic": up(CAR, Up.CHUNK),
        "content_type": transfer.CONTENT_CHUNK,
        "chunks": [
            {
                "name": name,
                "upload": (chunk := transfer.decode_chunk(payload)).upload,
                "number": chunk.number,
                "data_hex": bytes(chunk.data).hex(),
                "payload_hex": payload.hex(),
            }
            for name, payload in CHUNKS.items()
        ],
        "refused": [{"name": name, "payload_hex": payload.hex()} for name, payload in BAD_CHUNKS.items()],
    }
    golden(VECTORS / "chunk.json", text_of(table))


def test_trees_are_in_the_vectors(golden: Golden) -> None:
    leaves = [merkle.leaf_hash(bytes([n])) for n in range(8)]
    table = {
        "leaves": [leaf.hex() for leaf in leaves],
        "roots": [merkle.root_of(leaves[:count]).hex() for count in range(9)],
    }
    golden(VECTORS / "merkle.json", text_of(table))


# What the files say is understood


def read(kind: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((VECTORS / f"{kind}.json").read_text("utf-8"))
    return rows


def test_what_the_vectors_say_is_understood() -> None:
    assert [transfer.decode_up(row["payload"].encode()) for row in read("upload")] == list(UP.values())
    answers = [transfer.decode_down(row["payload"].encode()) for row in read("upload_answer")]
    assert answers == list(ANSWERS.values())
    for row, each in zip(read("evidence_receipt"), RECEIPTS.values(), strict=True):
        assert transfer.decode_down(row["payload"].encode()) is None  # no such message, but an order
        told = signing.decode_claims(signing.decode_envelope(row["payload"].encode()))
        assert transfer.decode_receipt(bytes(told.body)) == each


def test_the_manifests_in_the_vectors_are_read_from_what_was_signed() -> None:
    table = json.loads((VECTORS / "manifest.json").read_text("utf-8"))
    for row, each in zip(table["manifests"], MANIFESTS.values(), strict=True):
        read_back = signing.decode_envelope(json.dumps(row["envelope"]).encode())
        assert manifest.decode(read_back) == each
        signature = read_back.signatures[0].sig
        KEY.public_key().verify(signature, row["signed"].encode(), ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_in_the_vectors_are_refused(name: str) -> None:
    with pytest.raises(BadTransferError):
        transfer.decode_chunk(BAD_CHUNKS[name])


def test_a_newer_side_may_say_more() -> None:
    for row, each in zip(read("upload") + read("upload_answer"), [*UP.values(), *ANSWERS.values()], strict=True):
        payload = json.dumps(json.loads(row["payload"]) | {"new_name": [1]}).encode()
        decode = transfer.decode_up if parse_is_up(row["topic"]) else transfer.decode_down
        assert decode(payload) == each


def test_but_not_inside_what_is_signed() -> None:
    payload = next(iter(PAYLOADS.values()))[:-1] + b',"new_name":1}'
    with pytest.raises(manifest.BadManifestError):
        manifest.decode(signed(payload))
    body = transfer.encode(next(iter(RECEIPTS.values())))[:-1] + b',"new_name":1}'
    with pytest.raises(BadTransferError):
        transfer.decode_receipt(body)


def parse_is_up(topic: str) -> bool:
    try:
        return parse_up(topic).channel is Up.UPLOAD
    except ValueError:
        return False
