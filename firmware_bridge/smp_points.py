"""Where a microcontroller that speaks SMP has a value, and what its bytes mean: pure."""

import math
import struct
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

NAME_MAX: Final = 128


class Form(StrEnum):
    """How a setting is stored: little-endian, as such processors have it in memory."""

    U8 = "u8"
    I8 = "i8"
    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    F32 = "f32"


_FORMATS: Final = {
    Form.U8: "<B",
    Form.I8: "<b",
    Form.U16: "<H",
    Form.I16: "<h",
    Form.U32: "<I",
    Form.I32: "<i",
    Form.F32: "<f",
}


class Point(Struct, frozen=True, kw_only=True):
    """value = raw * ``scale`` + ``offset``. ``source`` ``statistic``: field ``name`` of statistics group ``group``;
    ``setting``: the setting of that name, in ``form``; ``image``: whether what runs is confirmed, 1 or 0.
    """

    source: Literal["statistic", "setting", "image"] = "statistic"
    group: Annotated[str, Meta(max_length=NAME_MAX)] = ""
    name: Annotated[str, Meta(max_length=NAME_MAX)] = ""
    form: Form = Form.U32
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if (self.source == "statistic") != bool(self.group):
            raise ValueError("group: expected of a statistic, and of nothing else")
        if (self.source == "image") == bool(self.name):
            raise ValueError("name: expected of a statistic and of a setting, and of nothing else")
        if not self.scale or not math.isfinite(self.scale) or not math.isfinite(self.offset):
            raise ValueError(f"scale, offset: expected finite ones, no scale of 0, got {self.scale}, {self.offset}")

    def value(self, raw: float) -> float:
        """What *raw* means."""
        return raw * self.scale + self.offset

    def value_of(self, data: bytes) -> float:
        """What the bytes of a setting mean. Raises ValueError: there are more or fewer than its form has."""
        size = struct.calcsize(_FORMATS[self.form])
        if len(data) != size:
            raise ValueError(f"expected {size} bytes of {self.form}, got {len(data)}")
        return self.value(float(struct.unpack(_FORMATS[self.form], data)[0]))

    def bytes_of(self, value: float) -> bytes:
        """What is written so that the setting means *value*, or what its form has nearest to it.

        Raises:
            ValueError: its form has nothing near.
        """
        raw = (value - self.offset) / self.scale
        try:
            return struct.pack(_FORMATS[self.form], raw if self.form is Form.F32 else round(raw))
        except (struct.error, OverflowError, ValueError) as error:
            raise ValueError(f"expected what {self.form} can hold, got {value:g}") from error
