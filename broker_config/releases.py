"""A release as server and device mean it: what is signed of an image beside its length and hashes, and where it is.

The metadata is TUF's (specification 1.0), so that a device in another language needs a TUF client and nothing of
ours; this is the ``custom`` object of each target, and the paths of the devices' listener.
"""

import re
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.ids import ContractError
from broker_config.text import shown

METADATA_PATH: Final = "/releases/metadata"
TARGETS_PATH: Final = "/releases/targets"
HW_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"
EXCEPTIONS_MAX: Final = 64
SHA256: Final = "sha256"

_HW: Final = re.compile(HW_PATTERN)
_METADATA: Final = re.compile(r"^(?:[1-9][0-9]{0,15}\.(?:root|snapshot|targets)|timestamp)\.json\Z")
_TARGET: Final = re.compile(r"^(?:agent|mcu)/[a-z0-9][a-z0-9._-]{0,62}/[0-9A-Za-z][0-9A-Za-z.+_-]{0,62}\Z")
_STORED: Final = re.compile(
    r"^(?:agent|mcu)/[a-z0-9][a-z0-9._-]{0,62}/[0-9a-f]{64}\.[0-9A-Za-z][0-9A-Za-z.+_-]{0,62}\Z"
)

Counter = Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)]
Hw = Annotated[str, Meta(pattern=HW_PATTERN)]


class ImageKind(StrEnum):
    """What an image is for: the agent on the board, or a microcontroller behind it."""

    AGENT = "agent"
    MCU = "mcu"


class Custom(Struct, frozen=True, omit_defaults=True):
    """The ``custom`` object of a target. ``counter``: grows with each release of a hardware and kind, and is what
    "older" means; ``version`` is for people. ``allow_downgrade_from``: counters of what may be installed though this
    release is older: the signed exception.
    """

    hw: Hw
    kind: ImageKind
    version: Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,39}\Z")]
    counter: Counter
    allow_downgrade_from: Annotated[tuple[Counter, ...], Meta(max_length=EXCEPTIONS_MAX)] = ()


def read_custom(value: object) -> Custom:
    """Of what JSON gave. What else is in it is for later versions. Raises ContractError."""
    try:
        return msgspec.convert(value, Custom)
    except msgspec.ValidationError as error:
        raise ContractError(f"custom: {error}") from error


def hardware(text: str) -> str:
    """Parse a hardware id. Raises ContractError."""
    if not _HW.match(text):
        raise ContractError(f"hardware: expected 1 to 63 of a-z, 0-9, '.', '_' and '-', got {shown(text)!r}")
    return text


def target_path(text: str) -> str:
    """Parse ``KIND/HW/NAME``: what a release is called in metadata and in orders. Raises ContractError."""
    if not _TARGET.match(text):
        raise ContractError(f"release: expected KIND/HARDWARE/NAME as mcu/dock-2/1.4.0.bin, got {shown(text)!r}")
    return text


def stored_path(path: str, sha256: str) -> str:
    """Where the image of *path* is below :data:`TARGETS_PATH`: its digest before its name, as TUF has it."""
    place, _, name = path.rpartition("/")
    return f"{place}/{sha256}.{name}"


def is_stored_path(text: str) -> bool:
    """Whether *text* can be one; nothing that leads elsewhere is."""
    return _STORED.match(text) is not None


def is_metadata_name(text: str) -> bool:
    """Whether *text* is the name of a file of metadata, as a device may ask for it."""
    return _METADATA.match(text) is not None
