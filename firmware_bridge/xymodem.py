"""The sending side of XMODEM, XMODEM-1K and YMODEM, as a machine of states: bytes in, bytes out, no clock, no port.

There are libraries, and neither of those tried tells the outcomes apart that matter when what is sent is the only
firmware of a device: nothing was begun, it broke off in the middle, or only the last word is missing.

Source: XMODEM/YMODEM PROTOCOL REFERENCE (C. Forsberg, 1988).
"""

import binascii
from enum import StrEnum, auto
from typing import Final

SOH, STX, EOT, ACK, NAK, CAN, CRC = 0x01, 0x02, 0x04, 0x06, 0x15, 0x18, 0x43
SHORT: Final = 128
LONG: Final = 1024
PAD: Final = b"\x1a"
TRIES_MAX: Final = 10
"""Of one block."""
END_TRIES_MAX: Final = 3
ABORT: Final = bytes([CAN]) * 5
NAME_BYTES_MAX: Final = 100


class Protocol(StrEnum):
    """What the boot loader speaks. XMODEM tells no length: the image is padded to whole blocks."""

    XMODEM = "xmodem"
    XMODEM_1K = "xmodem_1k"
    YMODEM = "ymodem"


class Outcome(StrEnum):
    """How a transfer ended, as far as this side can know."""

    NOT_BEGUN = "not_begun"
    """No block of the image was sent."""
    BROKEN = "broken"
    """Some were sent, and not all were taken: the boot loader may have erased what was there."""
    UNKNOWN = "unknown"
    """Every block was taken; that the end was, nobody said."""
    DONE = "done"
    """The end was taken too."""


class State(StrEnum):
    """What is waited for."""

    INVITATION = auto()
    HEADER_TAKEN = auto()
    DATA_INVITATION = auto()
    BLOCK_TAKEN = auto()
    END_TAKEN = auto()
    LAST_INVITATION = auto()
    LAST_TAKEN = auto()
    ENDED = auto()


_IF_LOST: Final = {
    State.INVITATION: Outcome.NOT_BEGUN,
    State.HEADER_TAKEN: Outcome.NOT_BEGUN,
    State.DATA_INVITATION: Outcome.NOT_BEGUN,
    State.BLOCK_TAKEN: Outcome.BROKEN,
    State.END_TAKEN: Outcome.UNKNOWN,
    # the file was taken; only the word that no other follows was not
    State.LAST_INVITATION: Outcome.DONE,
    State.LAST_TAKEN: Outcome.DONE,
}
"""What it is called when nothing more comes in a state."""
_BLOCKS: Final = frozenset({State.HEADER_TAKEN, State.BLOCK_TAKEN})


class Sender:
    """One image. Give it what is heard, write what it returns, and say when there was silence for too long."""

    def __init__(self, image: bytes, protocol: Protocol, name: str = "firmware.bin") -> None:
        assert image, "an empty image"
        self._image = image
        self._protocol = protocol
        self._name = name.encode("ascii", "replace")[:NAME_BYTES_MAX]
        self._long = protocol is not Protocol.XMODEM
        self._crc = True
        self._at = 0
        """Bytes that were taken."""
        self._number = 1
        self._sent = b""
        self._tries = 0
        self._cancels = 0
        self._stray = 0
        """Invitations since a block was sent: the first may have been under way by then."""
        self.state = State.INVITATION
        self.outcome: Outcome | None = None
        """None while it goes on."""

    @property
    def taken_bytes(self) -> int:
        """How much of the image the other end has taken."""
        return min(self._at, len(self._image))

    def heard(self, data: bytes) -> bytes:
        """What to write after *data* came. As long as the first invitation is waited for, *data* is all that came
        between two silences, and only its end counts: boot loaders greet with words, and words have a C.
        """
        out = b""
        if self.state is State.INVITATION:
            data = data[-2:] if data.endswith(bytes([CAN, CAN])) else data[-1:]
        for byte in data:
            if self.outcome is not None:
                break
            out += self._heard(byte)
        return out

    def silent(self) -> bytes:
        """What to write after nothing that counts came for as long as the caller waits."""
        if self.outcome is not None:
            return b""
        if not self._sent:  # it is the other end's turn to begin
            return self._end(_IF_LOST[self.state])
        return self._again()

    def lost(self) -> bytes:
        """Nothing more will come: the port closed, or the time is up. Returns a last word, if there is one to say."""
        return self._end(_IF_LOST[self.state]) if self.outcome is None else b""

    def _heard(self, byte: int) -> bytes:
        self._cancels = self._cancels + 1 if byte == CAN else 0
        if self._cancels == 2:  # one alone may be noise
            return self._end(_IF_LOST[self.state])
        match self.state:
            case State.INVITATION if byte in {CRC, NAK}:
                self._crc = byte == CRC
                return self._header() if self._protocol is Protocol.YMODEM else self._block()
            case State.DATA_INVITATION if byte in {CRC, NAK}:
                self._crc = byte == CRC
                return self._block()
            case State.LAST_INVITATION if byte in {CRC, NAK}:
                return self._send(State.LAST_TAKEN, self._framed(0, bytes(SHORT)))
            case State.HEADER_TAKEN | State.BLOCK_TAKEN | State.END_TAKEN | State.LAST_TAKEN:
                return self._answered(byte)
            case _:
                return b""

    def _answered(self, byte: int) -> bytes:
        if byte == ACK:
            return self._taken()
        if byte == CRC and self.state is not State.END_TAKEN:
            self._stray += 1
            return self._again() if self._stray > 1 else b""
        return self._again() if byte == NAK else b""

    def _taken(self) -> bytes:
        match self.state:
            case State.HEADER_TAKEN:
                self.state, self._sent = State.DATA_INVITATION, b""
                return b""
            case State.BLOCK_TAKEN:
                self._at += self._size()
                self._number = (self._number + 1) % 256
                return self._block() if self._at < len(self._image) else self._send(State.END_TAKEN, bytes([EOT]))
            case State.END_TAKEN if self._protocol is Protocol.YMODEM:
                self.state, self._sent = State.LAST_INVITATION, b""
                return b""
            case _:
                return self._end(Outcome.DONE)

    def _again(self) -> bytes:
        self._tries += 1
        self._stray = 0
        if self._tries >= (TRIES_MAX if self.state in _BLOCKS else END_TRIES_MAX):
            return self._end(_IF_LOST[self.state])
        return self._sent

    def _header(self) -> bytes:
        told = self._name + b"\0" + str(len(self._image)).encode() + b"\0"
        return self._send(State.HEADER_TAKEN, self._framed(0, told.ljust(SHORT, b"\0")))

    def _size(self) -> int:
        """Of the next block: a long one where what is left is worth it."""
        return LONG if self._long and len(self._image) - self._at > LONG - SHORT else SHORT

    def _block(self) -> bytes:
        size = self._size()
        data = self._image[self._at : self._at + size].ljust(size, PAD)
        return self._send(State.BLOCK_TAKEN, self._framed(self._number, data))

    def _framed(self, number: int, data: bytes) -> bytes:
        head = bytes([STX if len(data) == LONG else SOH, number, 0xFF - number])
        check = binascii.crc_hqx(data, 0).to_bytes(2, "big") if self._crc else bytes([sum(data) & 0xFF])
        return head + data + check

    def _send(self, state: State, data: bytes) -> bytes:
        self.state, self._sent, self._tries, self._stray = state, data, 0, 0
        return data

    def _end(self, outcome: Outcome) -> bytes:
        """Whoever is in the middle of something at the other end is told that it is over."""
        invited = self.state is not State.INVITATION
        self.state, self.outcome = State.ENDED, outcome
        return ABORT if invited and outcome in {Outcome.NOT_BEGUN, Outcome.BROKEN} else b""
