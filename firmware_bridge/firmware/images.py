"""MCUboot images: what one says of itself, and whether it is fit for a device, before that device is touched.

Layout, little-endian: header (32 bytes, padded to its own size), body, protected TLVs, TLVs. The SHA-256 TLV covers
all before the last area, a signature TLV covers that hash.
Source: https://docs.mcuboot.com/design.html#image-format
"""

import hashlib
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

IMAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""No MCU of this kind has more flash for one image."""
TLVS_MAX: Final = 64
MAGIC: Final = 0x96F3B83D
PROTECTED_MAGIC: Final = 0x6908
TLV_MAGIC: Final = 0x6907
_HEADER: Final = struct.Struct("<IIHHIIBBHII")
_AREA: Final = struct.Struct("<HH")
_TLV: Final = struct.Struct("<BxH")
_ENCRYPTED: Final = 0x04 | 0x08
_NON_BOOTABLE: Final = 0x10


class Tlv(IntEnum):
    """The kinds that are looked at. Values are MCUboot's."""

    KEY_HASH = 0x01
    SHA256 = 0x10
    RSA2048 = 0x20
    ECDSA = 0x22
    ED25519 = 0x24
    PURE = 0x25
    SECURITY_COUNTER = 0x50
    VENDOR = 0x74
    DEVICE_CLASS = 0x75


SIGNATURES: Final = (Tlv.ECDSA, Tlv.ED25519, Tlv.RSA2048)


class Fault(StrEnum):
    """Why an image is refused."""

    CORRUPTED = "corrupted"
    WRONGLY_SIGNED = "wrongly_signed"
    FOREIGN = "foreign"
    TOO_BIG = "too_big"
    DOWNGRADE = "downgrade"


class RefusedError(Exception):
    """The image is not for this device; the message says what was expected and what came. No device was touched."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Image:
    """``tlv_hash``: SHA-256 of header, body and protected TLVs, by which the device names the image; ``file_sha256``:
    of the whole file. ``counter``: of security; None: it has none. ``vendor``, ``device_class``: UUIDs of imgtool's
    ``--vid`` and ``--cid``. ``signatures``: (kind, bytes) in their order.
    """

    data: bytes
    version: str
    tlv_hash: bytes
    file_sha256: bytes
    counter: int | None
    vendor: uuid.UUID | None
    device_class: uuid.UUID | None
    signatures: tuple[tuple[Tlv, bytes], ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a device takes. ``hardware``: ``vendor/class``, the words of imgtool's ``--vid`` and ``--cid``; empty: an
    image may not name any. ``slot_bytes``: what the slot holds, with the trailer that MCUboot keeps at its end.
    ``counter_floor``: the security counter of what runs there; None: none is demanded.
    """

    hardware: str = ""
    slot_bytes: int = IMAGE_BYTES_MAX
    trailer_bytes: int = 0
    counter_floor: int | None = None


def hardware_ids(hardware: str) -> tuple[uuid.UUID, uuid.UUID]:
    """The UUIDs that imgtool makes of ``vendor/class``.

    Raises:
        ValueError: there is no slash, or nothing beside it.
    """
    vendor, slash, device_class = hardware.partition("/")
    if not (vendor and slash and device_class):
        raise ValueError(f"hardware: expected vendor/class, got {hardware!r}")
    vid = uuid.uuid5(uuid.NAMESPACE_DNS, vendor)
    return vid, uuid.uuid5(vid, device_class)


def read_image(data: bytes) -> Image:
    """Parse *data* and check its own hash.

    Raises:
        RefusedError: (corrupted) anything of it is not as the format says.
    """
    if len(data) > IMAGE_BYTES_MAX:
        raise RefusedError(Fault.TOO_BIG, f"expected at most {IMAGE_BYTES_MAX} bytes, got {len(data)}")
    if len(data) < _HEADER.size:
        raise _corrupted(f"header needs {_HEADER.size} bytes, got {len(data)}")
    magic, _, header_bytes, protected_bytes, body_bytes, flags, major, minor, revision, build, _ = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise _corrupted(f"expected magic {MAGIC:#010x}, got {magic:#010x}")
    if header_bytes < _HEADER.size:
        raise _corrupted(f"expected a header of {_HEADER.size} bytes or more, got {header_bytes}")
    if flags & _ENCRYPTED:
        raise _corrupted("an encrypted image cannot be checked here")
    if flags & _NON_BOOTABLE:
        raise _corrupted("it says of itself that it cannot be booted")
    at = header_bytes + body_bytes
    protected: Mapping[int, tuple[bytes, ...]] = {}
    if protected_bytes:
        protected, end = _area(data, at, PROTECTED_MAGIC)
        if end - at != protected_bytes:
            raise _corrupted(f"expected {protected_bytes} bytes of protected TLVs, got {end - at}")
        at = end
    found, end = _area(data, at, TLV_MAGIC)
    if data[end:].strip(b"\xff"):
        raise _corrupted(f"expected nothing after its TLVs, got {len(data) - end} bytes")
    digest = hashlib.sha256(data[:at]).digest()
    claimed = _one(found, Tlv.SHA256)
    if claimed is None:
        raise _corrupted("it has no SHA-256")
    if claimed != digest:
        raise _corrupted(f"expected hash {claimed.hex()[:16]}, as it says, got {digest.hex()[:16]}")
    if Tlv.PURE in found:
        raise _corrupted("a signature over the image itself, not its hash, is not supported")
    counter = _one(protected, Tlv.SECURITY_COUNTER)
    if counter is not None and len(counter) != 4:
        raise _corrupted(f"expected a security counter of 4 bytes, got {len(counter)}")
    return Image(
        data=data,
        version=f"{major}.{minor}.{revision}.{build}",
        tlv_hash=digest,
        file_sha256=hashlib.sha256(data).digest(),
        counter=None if counter is None else int.from_bytes(counter, "little"),
        vendor=_uuid(protected, Tlv.VENDOR),
        device_class=_uuid(protected, Tlv.DEVICE_CLASS),
        signatures=tuple((kind, sig) for kind in SIGNATURES for sig in found.get(kind, ())),
    )


def admit(image: Image, demands: Demands) -> None:
    """Whether *image* fits a device; its signature is another question.

    Raises:
        RefusedError: foreign, too big or a downgrade.
    """
    if demands.hardware:
        vendor, device_class = hardware_ids(demands.hardware)
        if image.vendor != vendor or image.device_class != device_class:
            raise RefusedError(
                Fault.FOREIGN,
                f"expected an image for {demands.hardware} ({vendor}, {device_class}), got one for "
                f"{image.vendor or 'no vendor'}, {image.device_class or 'no class'}",
            )
    elif image.vendor or image.device_class:
        raise RefusedError(Fault.FOREIGN, f"it is for {image.vendor}, {image.device_class}; no hardware was demanded")
    room = demands.slot_bytes - demands.trailer_bytes
    if len(image.data) > room:
        raise RefusedError(Fault.TOO_BIG, f"expected at most {room} bytes, got {len(image.data)}")
    floor = demands.counter_floor
    if floor is not None and (image.counter is None or image.counter < floor):
        raise RefusedError(
            Fault.DOWNGRADE,
            f"expected security counter {floor} or above, got {'none' if image.counter is None else image.counter}",
        )


def _area(data: bytes, at: int, magic: int) -> tuple[dict[int, tuple[bytes, ...]], int]:
    """The TLVs of the area at *at* by kind, and where it ends. Raises RefusedError."""
    if len(data) < at + _AREA.size:
        raise _corrupted(f"TLVs were expected at {at}, it has {len(data)} bytes")
    came, length = _AREA.unpack_from(data, at)
    if came != magic:
        raise _corrupted(f"expected TLV magic {magic:#06x} at {at}, got {came:#06x}")
    end = at + length
    if end > len(data) or length < _AREA.size:
        raise _corrupted(f"expected TLVs up to {end}, it has {len(data)} bytes")
    at += _AREA.size
    out: dict[int, tuple[bytes, ...]] = {}
    count = 0
    while at < end:
        count += 1
        if at + _TLV.size > end or count > TLVS_MAX:
            raise _corrupted(f"a TLV was expected at {at}, or there are more than {TLVS_MAX}")
        kind, length = _TLV.unpack_from(data, at)
        at += _TLV.size
        if at + length > end:
            raise _corrupted(f"TLV {kind:#04x} says {length} bytes, {end - at} are left")
        out[kind] = (*out.get(kind, ()), data[at : at + length])
        at += length
    return out, end


def _one(tlvs: Mapping[int, tuple[bytes, ...]], kind: Tlv) -> bytes | None:
    """Raises RefusedError: there are several, and nobody knows which one counts."""
    found = tlvs.get(kind, ())
    if len(found) > 1:
        raise _corrupted(f"expected one {kind.name}, got {len(found)}")
    return found[0] if found else None


def _uuid(tlvs: Mapping[int, tuple[bytes, ...]], kind: Tlv) -> uuid.UUID | None:
    found = _one(tlvs, kind)
    if found is None:
        return None
    if len(found) != 16:
        raise _corrupted(f"expected a {kind.name} of 16 bytes, got {len(found)}")
    return uuid.UUID(bytes=found)


def _corrupted(why: str) -> RefusedError:
    return RefusedError(Fault.CORRUPTED, why)
