"""What is sent and how it ends, byte by byte; other receivers take it in test_legacy_update.py."""

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.xymodem import (
    ABORT,
    ACK,
    CAN,
    CRC,
    END_TRIES_MAX,
    EOT,
    NAK,
    SOH,
    STX,
    TRIES_MAX,
    Outcome,
    Protocol,
    Sender,
    State,
)

IMAGE = bytes(range(200))
ACKED, NAKED, INVITED, CANCELLED = bytes([ACK]), bytes([NAK]), bytes([CRC]), bytes([CAN, CAN])


def crc(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "big")


def begun(protocol: Protocol = Protocol.XMODEM, image: bytes = IMAGE) -> tuple[Sender, bytes]:
    """A sender whose first block of data is on its way, and that block."""
    sender = Sender(image, protocol)
    sent = sender.heard(INVITED)
    if protocol is Protocol.YMODEM:
        assert sender.heard(ACKED) == b""
        sent = sender.heard(INVITED)
    return sender, sent


def test_blocks_are_numbered_padded_and_checked() -> None:
    sender, first = begun()
    assert first == bytes([SOH, 1, 0xFE]) + IMAGE[:128] + crc(IMAGE[:128])
    padded = IMAGE[128:] + b"\x1a" * 56
    assert sender.heard(ACKED) == bytes([SOH, 2, 0xFD]) + padded + crc(padded)
    assert sender.taken_bytes == 128
    assert sender.heard(ACKED) == bytes([EOT])
    assert sender.outcome is None
    assert sender.heard(ACKED) == b""
    assert str(sender.outcome) == Outcome.DONE
    assert sender.taken_bytes == 200


def test_who_invites_with_a_nak_gets_a_sum() -> None:
    sent = Sender(IMAGE, Protocol.XMODEM).heard(NAKED)
    assert sent == bytes([SOH, 1, 0xFE]) + IMAGE[:128] + bytes([sum(IMAGE[:128]) & 0xFF])


def test_a_long_block_goes_where_what_is_left_is_worth_it() -> None:
    sender, first = begun(Protocol.XMODEM_1K, b"x" * (1024 + 100))
    assert (first[0], len(first)) == (STX, 1029)
    assert len(sender.heard(ACKED)) == 133


def test_ymodem_tells_name_and_length_and_that_no_other_file_follows() -> None:
    sender = Sender(IMAGE, Protocol.YMODEM, "app.bin")
    header = b"app.bin\x00200\x00".ljust(128, b"\0")
    assert sender.heard(INVITED) == bytes([SOH, 0, 0xFF]) + header + crc(header)
    assert sender.heard(ACKED + INVITED)[1] == 1
    assert sender.heard(ACKED) == bytes([SOH, 2, 0xFD]) + IMAGE[128:] + b"\x1a" * 56 + crc(IMAGE[128:] + b"\x1a" * 56)
    assert sender.heard(ACKED) == bytes([EOT])
    assert sender.heard(NAKED) == bytes([EOT])  # many ask for the end twice
    assert sender.heard(ACKED) == b""
    last = bytes(128)
    assert sender.heard(INVITED) == bytes([SOH, 0, 0xFF]) + last + crc(last)
    assert sender.heard(ACKED) == b""
    assert sender.outcome is Outcome.DONE


def test_a_greeting_is_no_invitation_for_the_letters_in_it() -> None:
    sender = Sender(IMAGE, Protocol.XMODEM)
    assert sender.heard(b"Copyright ACME CORP\r\n") == b""
    assert sender.heard(b"READY\r\nC") != b""


def test_an_invitation_that_was_under_way_is_not_answered_and_the_next_one_is() -> None:
    sender, first = begun()
    assert sender.heard(INVITED) == b""
    assert sender.heard(INVITED) == first


@pytest.mark.parametrize("refusal", [NAKED, None])
def test_a_block_is_sent_again_until_it_has_been_tried_often_enough(refusal: bytes | None) -> None:
    sender, first = begun()
    for _ in range(TRIES_MAX - 1):
        assert (sender.heard(refusal) if refusal else sender.silent()) == first
    assert (sender.heard(refusal) if refusal else sender.silent()) == ABORT
    assert sender.outcome is Outcome.BROKEN


def test_an_end_that_nobody_takes_is_unknown_and_nothing_worse() -> None:
    sender, _ = begun()
    assert sender.heard(ACKED * 2) != b""
    for _ in range(END_TRIES_MAX - 1):
        assert sender.silent() == bytes([EOT])
    assert sender.silent() == b""
    assert sender.outcome is Outcome.UNKNOWN


def in_state(state: State) -> Sender:
    """A YMODEM sender that waits for *state*."""
    sender = Sender(IMAGE, Protocol.YMODEM)
    for data in (INVITED, ACKED, INVITED, ACKED, ACKED, ACKED, INVITED):
        if sender.state is state:
            break
        sender.heard(data)
    assert sender.state is state
    return sender


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.INVITATION, Outcome.NOT_BEGUN),
        (State.HEADER_TAKEN, Outcome.NOT_BEGUN),
        (State.DATA_INVITATION, Outcome.NOT_BEGUN),
        (State.BLOCK_TAKEN, Outcome.BROKEN),
        (State.END_TAKEN, Outcome.UNKNOWN),
        (State.LAST_INVITATION, Outcome.DONE),
        (State.LAST_TAKEN, Outcome.DONE),
    ],
)
def test_how_it_ends_in_each_state_when_the_port_closes_or_the_other_end_cancels(
    state: State, outcome: Outcome
) -> None:
    lost, cancelled = in_state(state), in_state(state)
    lost.lost()
    cancelled.heard(CANCELLED)
    assert lost.outcome is cancelled.outcome is outcome
    for each in (lost, cancelled):
        assert each.heard(ACKED * 9 + INVITED) == each.silent() == b""  # what ended stays so
        each.lost()
        assert each.outcome is outcome


def test_one_cancel_alone_may_be_noise() -> None:
    sender, _ = begun()
    sender.heard(bytes([CAN]))
    assert sender.outcome is None


@given(
    data=st.lists(st.one_of(st.none(), st.binary(max_size=8), st.sampled_from([ACKED, NAKED, INVITED])), max_size=60)
)
@pytest.mark.parametrize("protocol", list(Protocol))
def test_whatever_comes_done_means_that_each_block_was_taken(protocol: Protocol, data: list[bytes | None]) -> None:
    sender = Sender(IMAGE, protocol)
    acks = 0
    for each in data:
        acks += (each or b"").count(ACK)
        sender.silent() if each is None else sender.heard(each)
    if sender.outcome in {Outcome.DONE, Outcome.UNKNOWN}:
        assert sender.taken_bytes == len(IMAGE)
        assert acks >= 2
