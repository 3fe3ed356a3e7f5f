"""Has receipts signed: for devices as they fall due, and anew for a bundle."""

from collections.abc import Callable, Sequence

from msgspec import Raw

from broker_config import transfer
from broker_config.ids import DeviceId
from broker_config.signing import Kind
from broker_config.transfer import EvidenceReceipt, Receipted
from fleet_server.access.signing import Request, Signer
from fleet_server.evidence.content import Content
from fleet_server.evidence.pieces import Piece
from fleet_server.evidence.receipts import of_pieces


def signed(signer: Signer, device: DeviceId, uploads: tuple[Receipted, ...], *, life_ms: int) -> bytes:
    """One receipt, as it goes to its device. *life_ms*: of the signature, not of what it says. Raises SignerError."""
    body = Raw(transfer.encode(EvidenceReceipt(1, uploads)))
    return signer.sign(Request(Kind.EVIDENCE_RECEIPT, device, life_ms, body))


def for_bundle(
    signer: Signer, copies: Sequence[Content], *, life_ms: int
) -> Callable[[Sequence[Piece]], Sequence[bytes]]:
    """What signs receipts of pieces anew. *copies*: every one that is wanted. It raises SignerError, ContentError."""

    def is_everywhere(sha256: str) -> bool:
        return all(copy.exists(sha256) for copy in copies)

    def receipts(pieces: Sequence[Piece]) -> Sequence[bytes]:
        return [
            signed(signer, device, uploads, life_ms=life_ms) for device, uploads in of_pieces(pieces, is_everywhere)
        ]

    return receipts
