"""Whether an offer is taken: is it a manifest, the device's own, and is there room for its file? Values only.

Evidence is not turned away for the state of a certificate: one that was revoked, or not yet or no longer good when
the file was made, is a doubt that stays with the file. A signature that is not the device's is no doubt but a no.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from broker_config import limits, manifest, signing, transfer
from broker_config.ids import DeviceId
from broker_config.manifest import BadManifestError, Manifest
from broker_config.text import shown
from broker_config.transfer import Code
from fleet_server.access.enrolment import name_of, serial_text, signed_by

CERTIFICATES_MAX: Final = 8
"""In one offer; a chain is three."""
DISK_AGAIN_S: Final = 30
BUSY_AGAIN_S: Final = 15
QUOTA_AGAIN_S: Final = 3_600
DAY_MS: Final = 86_400_000
NO_CLOCK: Final = "none"


class RefusedError(Exception):
    """The offer is not taken. ``again_s`` 0: never, as it is."""

    def __init__(self, code: Code, detail: str, *, again_s: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.again_s = again_s


class Doubt(StrEnum):
    """What stays with a file that is taken all the same."""

    REVOKED = "revoked"
    """The certificate was revoked before the file was made."""
    VALIDITY = "validity"
    """The certificate was not good yet, or no longer, by the device's own clock."""


class Offered(NamedTuple):
    """An offer that is what it says. ``envelope``: the JSON that is kept."""

    upload: str
    manifest: Manifest
    envelope: bytes
    certificate: str
    doubts: tuple[Doubt, ...]


class Trust(NamedTuple):
    """``chain``: the devices' authorities, the root last. ``revoked_ms``: when a certificate was, by its serial as
    :func:`serial_text` writes it; None: it is not. ``grace``: past a certificate's end its device may still renew it.
    """

    chain: tuple[x509.Certificate, ...]
    revoked_ms: Callable[[str], int | None]
    grace: timedelta = timedelta(0)


class Room(NamedTuple):
    """What there is of it. ``promised``: bytes of other uploads that are not on the disk yet; ``open_uploads``: the
    device's own that it still works at; ``today_bytes``: what it has offered within a day.
    """

    disk_bytes: int
    disk_free_bytes: int
    promised_bytes: int
    open_uploads: int
    today_bytes: int


class Bounds(NamedTuple):
    """``disk_share_max``: of the disk that may be in use."""

    disk_share_max: float
    device_bytes_a_day_max: int


def offered(offer: transfer.Offer, device: DeviceId, trust: Trust) -> Offered:
    """What *device* has offered.

    Raises:
        RefusedError: it is no manifest (``malformed``), or not this device's (``identity``).
    """
    try:
        told = manifest.decode(offer.manifest)
    except BadManifestError as error:
        raise RefusedError(Code.MALFORMED, shown(error)) from error
    if told.device != device:
        raise RefusedError(Code.IDENTITY, f"device: expected {device}, got {told.device}")
    leaf = _leaf(offer.certificate, trust.chain)
    if name_of(leaf) != device:
        raise RefusedError(Code.IDENTITY, f"certificate: expected one of {device}, got {shown(name_of(leaf))!r}")
    if not _is_signed(offer.manifest, leaf):
        raise RefusedError(Code.IDENTITY, "signature: expected one by the certificate's key")
    return Offered(
        manifest.upload_id(offer.manifest.payload),
        told,
        signing.encode(offer.manifest),
        offer.certificate,
        _doubts(told, leaf, trust),
    )


def check_room(size: int, room: Room, bounds: Bounds) -> None:
    """Raises RefusedError: ``busy``, ``quota`` or ``disk``, and when to try again."""
    if room.open_uploads >= limits.OPEN_UPLOADS_MAX:
        raise RefusedError(
            Code.BUSY,
            f"open uploads: expected at most {limits.OPEN_UPLOADS_MAX}, there are {room.open_uploads}",
            again_s=BUSY_AGAIN_S,
        )
    if room.today_bytes + size > bounds.device_bytes_a_day_max:
        raise RefusedError(
            Code.QUOTA,
            f"bytes a day: expected at most {bounds.device_bytes_a_day_max}, got {room.today_bytes + size}",
            again_s=QUOTA_AGAIN_S,
        )
    used = room.disk_bytes - room.disk_free_bytes + room.promised_bytes + size
    if used > bounds.disk_share_max * room.disk_bytes:
        raise RefusedError(Code.DISK, f"disk: fuller than {bounds.disk_share_max:.0%}", again_s=DISK_AGAIN_S)


def _leaf(pem: str, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    """The first certificate, if one of *chain* signed it, or one that came with it and that one of *chain* signed:
    the authority may be another one by now than when the file was made.
    """
    try:
        leaf, *above = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except (ValueError, TypeError) as error:
        raise RefusedError(Code.IDENTITY, "certificate: expected PEM") from error
    if len(above) >= CERTIFICATES_MAX:
        raise RefusedError(Code.IDENTITY, f"certificate: expected at most {CERTIFICATES_MAX} in one offer")
    known = [*chain, *(each for each in above if _may_sign(each) and _is_issued(each, chain))]
    if not _is_issued(leaf, known):
        raise RefusedError(Code.IDENTITY, "certificate: expected one of this site's device authority")
    return leaf


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_issued(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False


def _is_signed(envelope: signing.Envelope, leaf: x509.Certificate) -> bool:
    data = signing.pre_authentication(envelope.payload_type, envelope.payload)
    keyid = serial_text(leaf.serial_number)
    return any(each.keyid == keyid and signed_by(leaf, data, each.sig) for each in envelope.signatures)


def _doubts(told: Manifest, leaf: x509.Certificate, trust: Trust) -> tuple[Doubt, ...]:
    found = []
    revoked_ms = trust.revoked_ms(serial_text(leaf.serial_number))
    timeless = told.begin.src == NO_CLOCK
    if revoked_ms is not None and (timeless or revoked_ms <= told.begin.t_ms):
        found.append(Doubt.REVOKED)
    from_s, to_s = leaf.not_valid_before_utc.timestamp(), (leaf.not_valid_after_utc + trust.grace).timestamp()
    if not timeless and not from_s <= told.begin.t_ms / 1000 <= to_s:
        found.append(Doubt.VALIDITY)
    return tuple(found)
