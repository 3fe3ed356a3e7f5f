"""The Modbus codec, RTU and TCP: all that this product uses of pymodbus, which is its frames and messages and not its
client; ports, retries and timing are our own.
"""

import struct
from enum import Enum, IntEnum
from typing import Final, Literal, NamedTuple

from firmware_bridge.left_out import left_out

# What a server answers from, and messages that are never asked or answered here: two thirds of a megabyte.
with left_out(
    "pymodbus.datastore",
    "pymodbus.pdu.device",
    "pymodbus.pdu.diag_message",
    "pymodbus.pdu.file_message",
    "pymodbus.pdu.mei_message",
    "pymodbus.pdu.other_message",
):
    from pymodbus.exceptions import ModbusException
    from pymodbus.framer import FramerRTU, FramerSocket
    from pymodbus.pdu import DecodePDU, ModbusPDU
    from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
    from pymodbus.pdu.register_message import (
        ReadHoldingRegistersRequest,
        ReadInputRegistersRequest,
        WriteMultipleRegistersRequest,
        WriteSingleRegisterRequest,
    )


class Function(IntEnum):
    """The reading functions. Source: Modbus Application Protocol V1.1b3, section 6."""

    COILS = 1
    DISCRETE = 2
    HOLDING = 3
    INPUT = 4

    @property
    def count_max(self) -> int:
        """Of bits or registers in one question."""
        return 2000 if self in {Function.COILS, Function.DISCRETE} else 125


EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target failed to respond",
}

_REQUESTS: Final[dict[Function, type[ModbusPDU]]] = {
    Function.COILS: ReadCoilsRequest,
    Function.DISCRETE: ReadDiscreteInputsRequest,
    Function.HOLDING: ReadHoldingRegistersRequest,
    Function.INPUT: ReadInputRegistersRequest,
}
TRANSACTIONS: Final = 0xFFFF
IDENTIFICATION: Final = 0x2B
_decoder: Final = DecodePDU(False)  # not a server


class Wire(Enum):
    """How frames are made: on a serial line, or over TCP."""

    RTU = FramerRTU(_decoder)
    TCP = FramerSocket(_decoder)


class Question(NamedTuple):
    """*length* bits or registers from *address*. *transaction*: over TCP, 1 to TRANSACTIONS, as its answer has."""

    unit: int
    function: Function
    address: int
    length: int
    wire: Wire = Wire.RTU
    transaction: int = 0

    def frame(self) -> bytes:
        """As it goes onto the wire."""
        pdu = _REQUESTS[self.function](
            dev_id=self.unit, transaction_id=self.transaction, address=self.address, count=self.length
        )
        frame: bytes = self.wire.value.buildFrame(pdu)
        return frame

    def answer(self, data: bytes) -> "tuple[int, ...] | DeviceRefusal | None":
        """The values in the frame that *data* holds, bits as 0 and 1; None: no whole frame of this unit that fits
        the question, so far.
        """
        pdu = _answer(self.wire, data, self.unit, self.transaction)
        if pdu is None or pdu.function_code & 0x7F != self.function:
            return None
        if pdu.isError():
            return DeviceRefusal(pdu.exception_code)
        if self.function in {Function.COILS, Function.DISCRETE}:
            bits = tuple(int(bit) for bit in pdu.bits)
            # bits come in whole bytes
            return bits[: self.length] if self.length <= len(bits) < self.length + 8 else None
        return tuple(pdu.registers) if len(pdu.registers) == self.length else None


class Order(NamedTuple):
    """Write *words* from *address*: one 0 or 1 to a coil, or one or two registers. Functions 5, 6 and 16."""

    unit: int
    table: Literal["coil", "holding"]
    address: int
    words: tuple[int, ...]
    wire: Wire = Wire.RTU
    transaction: int = 0

    def frame(self) -> bytes:
        """As it goes onto the wire."""
        frame: bytes = self.wire.value.buildFrame(self._pdu())
        return frame

    def _pdu(self) -> ModbusPDU:
        unit, transaction, words = self.unit, self.transaction, list(self.words)
        if self.table == "coil":
            return WriteSingleCoilRequest(unit, transaction, self.address, bits=[bool(words[0])])
        if len(words) == 1:
            return WriteSingleRegisterRequest(unit, transaction, self.address, registers=words)
        return WriteMultipleRegistersRequest(unit, transaction, self.address, len(words), registers=words)

    def answer(self, data: bytes) -> "bool | DeviceRefusal | None":
        """True: the unit says that it has taken it; None: no whole frame of this unit that answers, so far."""
        pdu = _answer(self.wire, data, self.unit, self.transaction)
        if pdu is None or pdu.function_code & 0x7F != self._pdu().function_code:
            return None
        if pdu.isError():
            return DeviceRefusal(pdu.exception_code)
        return True if pdu.address == self.address else None


class WhoIsThere(NamedTuple):
    """Ask for the basic part of a unit's identification. Source: as above, section 6.21."""

    unit: int
    wire: Wire = Wire.RTU
    transaction: int = 0

    def frame(self) -> bytes:
        """As it goes onto the wire."""
        frame: bytes = self.wire.value.buildFrame(_ReadIdentification(self.unit, self.transaction))
        return frame

    def answer(self, data: bytes) -> "dict[int, bytes] | DeviceRefusal | None":
        """Objects by number: 0 maker, 1 product code, 2 revision; None: no whole frame of this unit that answers, so
        far. Not by the library, whose messages of this kind bring all that a server answers from.
        """
        body = self._body(data)
        if len(body) == 2 and body[0] == IDENTIFICATION | 0x80:
            return DeviceRefusal(body[1])
        if len(body) < 7 or body[0] != IDENTIFICATION or body[1:3] != b"\x0e\x01":
            return None
        count, rest = body[6], body[7:]
        found: dict[int, bytes] = {}
        for _ in range(count):
            if len(rest) < 2 or len(rest) < 2 + rest[1]:
                return None
            found[rest[0]], rest = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
        return None if rest else found

    def _body(self, data: bytes) -> bytes:
        """What is between the frame's ends; empty: it is not whole, or of another unit."""
        if self.wire is Wire.RTU:
            crc = FramerRTU.compute_CRC(data[:-2]).to_bytes(2, "big")
            return data[1:-2] if data[:1] == bytes([self.unit]) and data[-2:] == crc else b""
        head = struct.pack(">HHHB", self.transaction, 0, max(0, len(data) - 6), self.unit)
        return data[len(head) :] if data.startswith(head) else b""


class _ReadIdentification(ModbusPDU):
    function_code = IDENTIFICATION

    def encode(self) -> bytes:
        return b"\x0e\x01\x00"


def _answer(wire: Wire, data: bytes, unit: int, transaction: int) -> ModbusPDU | None:
    pdu: ModbusPDU | None
    try:
        _, pdu = wire.value.handleFrame(data, unit, transaction)
    except (ModbusException, IndexError, ValueError, struct.error):
        return None
    return pdu


class DeviceRefusal(NamedTuple):
    """The device answered with an exception."""

    code: int

    def __str__(self) -> str:
        return f"the device answers exception {self.code} ({EXCEPTIONS.get(self.code, 'unknown')})"
