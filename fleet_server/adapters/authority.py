"""The devices' authority in two files: the port :class:`fleet_server.access.ca.Keys`."""

from pathlib import Path

from cryptography import x509

from fleet_server.access.ca import Ca, CaError, Issued


class FileKeys:
    """Read once; a new authority counts from the next start."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """*cert_file*: the authority first, the root last.

        Raises:
            CaError: a file is missing, or not what it should be.
        """
        try:
            pem, key = cert_file.read_bytes(), key_file.read_bytes()
            self._chain = tuple(x509.load_pem_x509_certificates(pem))
        except (OSError, ValueError) as error:
            raise CaError(f"device CA: {error}") from error
        self._authority = Ca.load(Issued(pem, key))

    def authority(self) -> Ca:
        """See the port."""
        return self._authority

    def chain(self) -> tuple[x509.Certificate, ...]:
        """See the port."""
        return self._chain
