"""Which instrument is meant, and whether that is the one that answers."""

from typing import Final

from msgspec import Struct

from broker_config.text import shown
from firmware_bridge.readings import Identity

QUARANTINED: Final = "quarantined: "
"""What is said of an instrument that is left alone begins so."""


class Expected(Struct, frozen=True):
    """What the instrument must tell of itself; what is empty may be anything."""

    serial: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if not self.serial and not self.model:
            raise ValueError("expected serial, model or both")


def wrong(expected: Expected, told: Identity) -> str:
    """Why *told* is not who is meant; empty: it is. Who does not tell what is expected is not."""
    for what, wanted, found in (
        ("serial number", expected.serial, told.serial),
        ("model", expected.model, told.model),
    ):
        if wanted and wanted != found:
            return f"expected {what} {shown(wanted, 64)}, got {shown(found, 64) or 'none'}"
    return ""
