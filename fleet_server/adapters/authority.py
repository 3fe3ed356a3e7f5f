"""The devices' authority: the port :class:`fleet_server.access.ca.Keys` on files, and on tokens that those name.

A file of a key may hold a ``pkcs11:`` URI instead: then the key is in that token, and never here.
"""

from pathlib import Path
from typing import Final

from cryptography import x509

from fleet_server.access.ca import Ca, CaError, Former, Issued, KeyUnreachableError
from fleet_server.access.key_uri import KeyUri, KeyUriError, is_key_uri
from fleet_server.adapters.token_key import TokenCaKey

FORMER_CAS_MAX: Final = 4
NEXT: Final = ".next"


class FileKeys:
    """Read once; a new authority counts from the next start."""

    def __init__(self, cert_file: Path, key: Path | KeyUri, former_directory: Path | None = None) -> None:
        """*cert_file*: the authority first, the root last. *key*: its file, or which one in a token.
        *former_directory*: NAME.crt, and NAME.key where it is not lost; one that is not there holds none.

        Raises:
            CaError: a file is missing, or not what it should be.
            KeyUnreachableError: a token.
        """
        try:
            self._authority, self._chain = _read(cert_file, key)
        except KeyUnreachableError:
            raise
        except CaError:
            # the power went while another pair took this one's place: that one is whole beside it
            if not isinstance(key, Path) or not next_of(cert_file).exists():
                raise
            self._authority, self._chain = _read(next_of(cert_file), next_of(key))
        found = () if former_directory is None else read_former(former_directory)
        # the same cut may have left the authority among the former ones already
        self._former = tuple(each for each in found if each.certificate != self._authority.certificate)

    def authority(self) -> Ca:
        """See the port."""
        return self._authority

    def chain(self) -> tuple[x509.Certificate, ...]:
        """See the port."""
        return self._chain

    def former(self) -> tuple[Former, ...]:
        """See the port."""
        return self._former


def next_of(path: Path) -> Path:
    """Where a file lies that is to take the place of *path*."""
    return path.with_name(f"{path.stem}{NEXT}{path.suffix}")


def read_former(directory: Path) -> tuple[Former, ...]:
    """By name. Raises CaError: a file that is not what it should be, or more than FORMER_CAS_MAX."""
    files = sorted(directory.glob("*.crt"))
    if len(files) > FORMER_CAS_MAX:
        raise CaError(f"{directory}: expected at most {FORMER_CAS_MAX} former authorities, got {len(files)}")
    return tuple(map(_read_former, files))


def _read_former(cert_file: Path) -> Former:
    key_file = cert_file.with_suffix(".key")
    try:
        certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError) as error:
        raise CaError(f"former device CA: {cert_file}: {error}") from error
    try:
        return Former(certificate, _read(cert_file, key_file)[0] if key_file.exists() else None)
    except KeyUnreachableError as error:
        raise KeyUnreachableError(
            f"{error}; if it is gone for good, remove {key_file}: its list then stays as it is"
        ) from error


def loaded(issued: Issued) -> Ca:
    """As :meth:`Ca.load`, or with the key that is in a token.

    Raises:
        CaError: as there, or no URI of a key.
        KeyUnreachableError: the token.
    """
    if not is_key_uri(issued.key_pem):
        return Ca.load(issued)
    try:
        uri = KeyUri.parse(issued.key_pem.decode("ascii", "replace").strip())
    except KeyUriError as error:
        raise CaError(f"device CA: {error}") from error
    return Ca.of(issued.certificate_pem, TokenCaKey(uri))


def _read(cert_file: Path, key: Path | KeyUri) -> tuple[Ca, tuple[x509.Certificate, ...]]:
    try:
        pem = cert_file.read_bytes()
        key_pem = key.read_bytes() if isinstance(key, Path) else b""
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except (OSError, ValueError) as error:
        raise CaError(f"device CA: {error}") from error
    return (Ca.of(pem, TokenCaKey(key)) if isinstance(key, KeyUri) else loaded(Issued(pem, key_pem))), chain
