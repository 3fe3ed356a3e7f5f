"""Reading metadata, and who has signed it: what the rest of the room stands on.

Rule 1: what is read here came from a file or a person, and is believed only after :func:`require`.
Rule 2: versions, but the root's, are the time in seconds or one more than the last, whichever is higher: so a server
that was restored from a backup is not refused for ever by devices that have seen what it lost.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Signature, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from broker_config.ids import ContractError
from broker_config.limits import RELEASE_METADATA_BYTES_MAX
from broker_config.text import shown
from fleet_server.access.signing import SigningKey

ROOT: Final = Root.type
TARGETS: Final = Targets.type
SNAPSHOT: Final = Snapshot.type
TIMESTAMP: Final = Timestamp.type
TARGETS_FILE: Final = "targets.json"

AnyMetadata: TypeAlias = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


class ReleaseError(ContractError):
    """It cannot be released, or is no metadata; nothing was published."""


class ThresholdError(ReleaseError):
    """Fewer persons have signed than have to."""


def read(data: bytes, kind: type[S]) -> Metadata[S]:
    """Whoever has signed it. Raises ReleaseError: it is none, or of another kind."""
    if len(data) > RELEASE_METADATA_BYTES_MAX:
        raise ReleaseError(f"metadata: expected at most {RELEASE_METADATA_BYTES_MAX} bytes, got {len(data)}")
    try:
        found = Metadata[S].from_bytes(data)
    except (RepositoryError, RecursionError) as error:
        raise ReleaseError(f"metadata: expected TUF's JSON, got {shown(error)}") from error
    if not isinstance(found.signed, kind):
        raise ReleaseError(f"metadata: expected {kind.type}, got {found.signed.type}")
    return found


def read_any(data: bytes) -> Metadata[Root] | Metadata[Targets]:
    """What persons sign. Raises ReleaseError."""
    try:
        return read(data, Targets)
    except ReleaseError:
        return read(data, Root)


def key_of(public: bytes) -> SSlibKey:
    """As metadata names it: Ed25519, its 32 bytes."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))


def sign(metadata: AnyMetadata, key: SigningKey) -> None:
    """Put a signature beside those that are there, or in place of the key's own."""
    keyid = key_of(key.public).keyid
    metadata.signatures[keyid] = Signature(keyid, key.sign(metadata.signed_bytes).hex())


def signers(metadata: AnyMetadata, root: Root) -> tuple[frozenset[str], int]:
    """Whose signatures *root* takes for this role, and how many it asks for."""
    kind = metadata.signed.type
    result = root.get_verification_result(kind, metadata.signed_bytes, metadata.signatures)
    return frozenset(result.signed), result.threshold


def require(metadata: AnyMetadata, root: Root) -> None:
    """Raises ThresholdError: too few of whom *root* names have signed."""
    signed, threshold = signers(metadata, root)
    if len(signed) < threshold:
        kind = metadata.signed.type
        raise ThresholdError(
            f"{kind}: expected {threshold} signatures of whom the root names, got {len(signed)}; "
            "each person signs with: fleet-server releases sign"
        )


def version_after(last: int, now: datetime) -> int:
    """See rule 2."""
    return max(last + 1, int(now.timestamp()))


def until(now: datetime, days: float) -> datetime:
    """In whole seconds, as metadata has it."""
    return (now.astimezone(UTC) + timedelta(days=days)).replace(microsecond=0)
