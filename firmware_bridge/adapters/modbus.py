"""The Modbus RTU codec: all that this product uses of pymodbus, which is its frames and messages and not its client;
ports, retries and timing are our own.
"""

from enum import IntEnum
from typing import Final, NamedTuple

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
    from pymodbus.framer import FramerRTU
    from pymodbus.pdu import DecodePDU, ModbusPDU
    from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
    from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest


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
_framer: Final = FramerRTU(DecodePDU(False))  # not a server


class Question(NamedTuple):
    """*length* bits or registers from *address*."""

    unit: int
    function: Function
    address: int
    length: int

    def frame(self) -> bytes:
        """As it goes onto the wire."""
        return _framer.buildFrame(_REQUESTS[self.function](dev_id=self.unit, address=self.address, count=self.length))

    def answer(self, data: bytes) -> "tuple[int, ...] | DeviceRefusal | None":
        """The values in the frame that *data* holds, bits as 0 and 1; None: no whole frame of this unit that fits
        the question, so far.
        """
        try:
            _, pdu = _framer.handleFrame(data, self.unit, 0)
        except (ModbusException, IndexError, ValueError):
            return None
        if pdu is None or pdu.function_code & 0x7F != self.function:
            return None
        if pdu.isError():
            return DeviceRefusal(pdu.exception_code)
        if self.function in {Function.COILS, Function.DISCRETE}:
            bits = tuple(int(bit) for bit in pdu.bits)
            # bits come in whole bytes
            return bits[: self.length] if self.length <= len(bits) < self.length + 8 else None
        return tuple(pdu.registers) if len(pdu.registers) == self.length else None


class DeviceRefusal(NamedTuple):
    """The device answered with an exception."""

    code: int

    def __str__(self) -> str:
        return f"the device answers exception {self.code} ({EXCEPTIONS.get(self.code, 'unknown')})"
