"""What devices and server say of uploads, whatever comes instead."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import limits, manifest, signing, transfer
from broker_config.manifest import BadManifestError
from broker_config.signing import Envelope, Signature
from broker_config.transfer import BadTransferError, Chunk, Query, State
from tests.contract.test_transfer_vectors import ANSWERS, CHUNKS, MANIFESTS, RECEIPTS, UP

MESSAGES = [transfer.encode(each) for each in (*UP.values(), *ANSWERS.values(), *RECEIPTS.values())]
UPLOAD = "0123456789abcdef" * 2
DECODERS = [transfer.decode_up, transfer.decode_down, transfer.decode_receipt]


def refused_or_read(payload: bytes) -> None:
    """Nothing but the contract's own errors."""
    for decode in DECODERS:
        try:
            decode(payload)
        except BadTransferError:
            continue


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_by_name(payload: bytes) -> None:
    refused_or_read(payload)
    try:
        transfer.decode_chunk(payload)
    except BadTransferError:
        return


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_a_byte_changed_is_read_or_refused_by_name(message: bytes, data: st.DataObject) -> None:
    spoiled = bytearray(message)
    spoiled[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    refused_or_read(bytes(spoiled))


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_that_was_cut_is_refused(message: bytes, data: st.DataObject) -> None:
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    for decode in DECODERS:
        with pytest.raises(BadTransferError):
            decode(cut)


@given(st.binary(min_size=1, max_size=limits.CHUNK_BYTES_MIN), st.integers(0, 2**32 - 1))
def test_a_chunk_comes_back_as_it_was(data: bytes, number: int) -> None:
    chunk = transfer.decode_chunk(transfer.encode_chunk(Chunk(UPLOAD, number, data)))
    assert (chunk.upload, chunk.number, bytes(chunk.data)) == (UPLOAD, number, data)


@given(st.binary(min_size=1, max_size=limits.CHUNK_BYTES_MIN), st.integers(0, 2**32 - 1))
def test_the_crc_of_a_chunk_is_the_same_with_and_without_its_message(data: bytes, number: int) -> None:
    chunk = Chunk(UPLOAD, number, data)
    assert transfer.checked(chunk) == transfer.decode_chunk(transfer.encode_chunk(chunk))


@given(st.sampled_from(list(CHUNKS.values())), st.data())
def test_a_chunk_with_any_bit_changed_is_refused(chunk: bytes, data: st.DataObject) -> None:
    spoiled = bytearray(chunk)
    spoiled[data.draw(st.integers(0, len(chunk) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadTransferError):
        transfer.decode_chunk(bytes(spoiled))


@pytest.mark.parametrize("size", [0, limits.CHUNK_BYTES_MAX + 1])
def test_a_chunk_of_no_or_too_many_bytes_is_not_made(size: int) -> None:
    with pytest.raises(BadTransferError, match="expected 1 to"):
        transfer.encode_chunk(Chunk(UPLOAD, 0, bytes(size)))


def test_a_message_that_is_too_long_is_not_read() -> None:
    with pytest.raises(BadTransferError, match="at most"):
        transfer.decode_up(b" " * limits.BATCH_BYTES_MAX + transfer.encode(Query(1, UPLOAD)))


@pytest.mark.parametrize(
    "change",
    [
        {"window_bytes": -1},
        {"window_bytes": limits.UPLOAD_WINDOW_BYTES_MAX + 1},
        {"missing": [[0, 0]] * (limits.RANGES_MAX + 1)},
        {"missing": [[-1, 0]]},
        {"upload": "../../etc/passwd"},
        {"upload": UPLOAD + "\n"},
        {"again_s": transfer.RETRY_S_MAX + 1},
        {"v": 2},
    ],
)
def test_a_state_outside_its_bounds_is_refused(change: dict[str, object]) -> None:
    good = msgspec.json.decode(transfer.encode(State(1, UPLOAD, ((0, 0),), 1)))
    assert transfer.decode_down(msgspec.json.encode(good)) is not None
    with pytest.raises(BadTransferError):
        transfer.decode_down(msgspec.json.encode(good | change))


# manifests


def enveloped(payload: bytes) -> Envelope:
    return Envelope(payload, manifest.PAYLOAD_TYPE, (Signature("k", b"s"),))


GOOD = msgspec.json.decode(manifest.encode(next(iter(MANIFESTS.values()))))


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a/b", "/etc/passwd", "..", ".hidden", "", "a\n", "a\0b", "a" * 129, "ü.mp4", "a b"],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BadManifestError):
        manifest.decode(enveloped(msgspec.json.encode(GOOD | {"name": name})))


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_bytes": 20_000},  # no power of two
        {"chunk_bytes": limits.CHUNK_BYTES_MIN // 2},
        {"chunk_bytes": limits.CHUNK_BYTES_MAX * 2},
        {"size": 0},
        {"size": limits.UPLOAD_BYTES_MAX + 1},
        {"sha256": "0" * 63},
        {"device": "_server"},
        {"segment": {"recording": "../x", "number": 1, "prev": "0" * 64}},
        {"v": 2},
        {"unknown": 1},
    ],
)
def test_a_manifest_outside_its_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadManifestError):
        manifest.decode(enveloped(msgspec.json.encode(GOOD | change)))


def test_bytes_that_the_contract_would_not_have_written_are_refused() -> None:
    payload = manifest.encode(next(iter(MANIFESTS.values())))
    twice = payload.replace(b'"size":40000', b'"size":40000,"size":40000')
    for other in (payload + b" ", b" " + payload, twice, payload.replace(b'"v":1,', b"")):
        with pytest.raises(BadManifestError):
            manifest.decode(enveloped(other))
    assert manifest.decode(enveloped(payload)).size == 40_000


def test_another_payload_type_is_another_protocols() -> None:
    payload = manifest.encode(next(iter(MANIFESTS.values())))
    with pytest.raises(BadManifestError, match="payload type"):
        manifest.decode(Envelope(payload, signing.PAYLOAD_TYPE, (Signature("k", b"s"),)))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused_by_name(payload: bytes) -> None:
    with pytest.raises(BadManifestError):
        manifest.decode(enveloped(payload))


def test_chunks_are_counted_from_0_and_the_last_is_shorter() -> None:
    told = next(iter(MANIFESTS.values()))
    assert told.chunks == 3
    assert [told.chunk_size(n) for n in range(3)] == [16_384, 16_384, 7_232]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            told.chunk_size(index)
