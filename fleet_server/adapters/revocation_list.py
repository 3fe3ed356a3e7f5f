"""The lists of revoked devices in the broker's file: :class:`fleet_server.access.revocation.RevocationList`.

A list for each authority, because a broker looks at the one of a certificate's own issuer, and lets in nobody whose
issuer has none. Each has every revoked serial: two of 128 random bits are never the same, so nobody need know who
signed which.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.access.ca import (
    BACKDATED,
    CRL_DAYS,
    Ca,
    CaError,
    Keys,
    Revoked,
    authorities,
    sign_revocations,
)
from fleet_server.adapters.files import write_durably

PUBLIC: Final = 0o644
KEPT: Final = timedelta(days=825)
"""What the file says is revoked stays so for as long as a certificate may be good, whatever the database has lost."""
STEP: Final = timedelta(seconds=1)
END: Final = b"-----END X509 CRL-----\n"


class CrlFile:
    """See the port. What *root_crl_file* has is put behind."""

    def __init__(self, path: Path, keys: Keys, root_crl_file: Path | None) -> None:
        self._path = path
        self._keys = keys
        self._root_crl_file = root_crl_file

    def publish(self, revoked: list[Revoked], *, now: datetime) -> None:
        """See the port. A list of nobody's that counts still is left out: an authority is retired by that."""
        old = self._read()
        signers = authorities(self._keys)
        entries: dict[int, Revoked] = {}
        for signer in signers:
            if signer.certificate.subject in old:
                entries |= _kept(old[signer.certificate.subject], now)
        entries |= {each.serial: each for each in revoked}
        ordered = [entries[serial] for serial in sorted(entries)]
        signed = [_signed(signer, ordered, old.get(signer.certificate.subject), now) for signer in signers]
        lost = [each.certificate.subject for each in self._keys.former() if each.ca is None]
        as_they_were = [old[name].public_bytes(Encoding.PEM) for name in lost if name in old]
        behind = b"" if self._root_crl_file is None else self._root_crl_file.read_bytes()
        write_durably(self._path, b"".join([*signed, *as_they_were, behind]), mode=PUBLIC)

    def until(self) -> datetime | None:
        """See the port."""
        found = self._read()
        ours = [found.get(each.certificate.subject) for each in authorities(self._keys)]
        ends = [None if each is None else each.next_update_utc for each in ours]
        known = [each for each in ends if each is not None]
        return min(known) if len(known) == len(ends) else None

    def ends(self) -> Mapping[str, datetime]:
        """See the port."""
        found = self._read().items()
        return {name.rfc4514_string(): each.next_update_utc for name, each in found if each.next_update_utc}

    def has_all(self, revoked: list[Revoked]) -> bool:
        """See the port."""
        found = self._read()
        signers = {each.certificate.subject for each in authorities(self._keys)}
        lost = {each.certificate.subject for each in self._keys.former() if each.ca is None}
        above = set() if self._root_crl_file is None else set(read_lists(self._root_crl_file.read_bytes()))
        if not signers | above <= found.keys() or not found.keys() <= signers | lost | above:
            return False
        listed = [{entry.serial_number for entry in found[signer]} for signer in signers]
        return all(each.serial in serials for each in revoked for serials in listed)

    def has(self, serial: int) -> bool:
        """Whether a certificate is revoked. Raises CaError: nobody can tell."""
        found = self._read()
        if self._keys.authority().certificate.subject not in found:
            raise CaError(f"{self._path}: there is no list of revoked devices")
        return any(each.get_revoked_certificate_by_serial_number(serial) is not None for each in found.values())

    def _read(self) -> dict[x509.Name, x509.CertificateRevocationList]:
        """By who signed each; empty if there is no file. Raises CaError."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return read_lists(text)
        except ValueError as error:
            raise CaError(f"{self._path}: expected a list of revoked certificates as PEM: {error}") from error


def read_lists(text: bytes) -> dict[x509.Name, x509.CertificateRevocationList]:
    """The lists of a file by who signed each. Raises ValueError: something in it is none."""
    *parts, rest = text.split(END)
    if rest.strip() or not parts:
        raise ValueError("it does not end with one")
    lists = [x509.load_pem_x509_crl(part + END) for part in parts]
    return {each.issuer: each for each in lists}


def _signed(signer: Ca, ordered: list[Revoked], old: x509.CertificateRevocationList | None, now: datetime) -> bytes:
    # A broker that has read two lists believes the later one, and to it a second is the smallest difference.
    updated = (now - BACKDATED).replace(microsecond=0)
    if old is not None:
        updated = max(updated, old.last_update_utc + STEP)
    return sign_revocations(signer, ordered, updated=updated, until=now + timedelta(days=CRL_DAYS))


def _kept(old: x509.CertificateRevocationList, now: datetime) -> dict[int, Revoked]:
    return {
        each.serial_number: Revoked(each.serial_number, each.revocation_date_utc)
        for each in old
        if now - each.revocation_date_utc < KEPT
    }


def newest_of(text: bytes) -> datetime | None:
    """When the newest list of a file was made; None: it has none that can be read."""
    try:
        return max((each.last_update_utc for each in read_lists(text).values()), default=None)
    except ValueError:
        return None
