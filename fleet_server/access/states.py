"""What may become of a certificate: names that commands know too, without a library for certificates."""

from enum import StrEnum


class State(StrEnum):
    """Of a certificate: what it may still do. Only ``active`` renews; only ``revoked`` is refused by the broker."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


class Reason(StrEnum):
    """Why a device is put out."""

    LOST = "lost"
    STOLEN = "stolen"
    DECOMMISSIONED = "decommissioned"
