"""A file that has come whole and was read again: what transfer hands to custody. This is the port between the two."""

from typing import NamedTuple, Protocol

from broker_config.manifest import Manifest
from fleet_server.access.audit import Place


class Arrival(NamedTuple):
    """One file. ``envelope``: the JSON of the signed manifest, byte for byte as it is kept; ``certificate``: of the
    key that signed it and what stands above it, PEM. ``offered_ms``, ``verified_ms``: the server's clock. ``via``:
    ``mqtt`` or ``http``. ``doubts``: what was not right with the certificate and did not keep the file away, such as
    ``revoked``.
    """

    upload: str
    manifest: Manifest
    envelope: bytes
    certificate: str
    offered_ms: int
    verified_ms: int
    via: str
    doubts: tuple[str, ...] = ()


class Register(Protocol):
    """Any thread may call."""

    def verified(self, arrival: Arrival) -> Place:
        """Enter a file whose content is in the store under its SHA-256, and where the custody log says so.

        Durable once it returns; the same upload again has the same place.

        Raises:
            StoreError, BrokenLogError: it is not entered, and must not be receipted.
        """
