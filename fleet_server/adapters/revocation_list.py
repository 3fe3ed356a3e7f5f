"""The list of revoked devices in the broker's file: :class:`fleet_server.access.revocation.RevocationList`."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from fleet_server.access.ca import BACKDATED, CRL_DAYS, CaError, Keys, Revoked, sign_revocations
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
        """See the port."""
        old = self._read()
        entries = {} if old is None else _kept(old, now)
        entries |= {each.serial: each for each in revoked}
        # A broker that has read two lists believes the later one, and to it a second is the smallest difference.
        updated = (now - BACKDATED).replace(microsecond=0)
        if old is not None:
            updated = max(updated, old.last_update_utc + STEP)
        ordered = [entries[serial] for serial in sorted(entries)]
        signed = sign_revocations(
            self._keys.authority(), ordered, updated=updated, until=now + timedelta(days=CRL_DAYS)
        )
        behind = b"" if self._root_crl_file is None else self._root_crl_file.read_bytes()
        write_durably(self._path, signed + behind, mode=PUBLIC)

    def until(self) -> datetime | None:
        """See the port."""
        found = self._read()
        return None if found is None else found.next_update_utc

    def has(self, serial: int) -> bool:
        """Whether a certificate is revoked. Raises CaError: nobody can tell."""
        found = self._read()
        if found is None:
            raise CaError(f"{self._path}: there is no list of revoked devices")
        return found.get_revoked_certificate_by_serial_number(serial) is not None

    def _read(self) -> x509.CertificateRevocationList | None:
        """The authority's own list, which is the first of the file; None: there is none."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return x509.load_pem_x509_crl(text.partition(END)[0] + END)
        except ValueError as error:
            raise CaError(f"{self._path}: expected a list of revoked certificates as PEM: {error}") from error


def _kept(old: x509.CertificateRevocationList, now: datetime) -> dict[int, Revoked]:
    return {
        each.serial_number: Revoked(each.serial_number, each.revocation_date_utc)
        for each in old
        if now - each.revocation_date_utc < KEPT
    }
