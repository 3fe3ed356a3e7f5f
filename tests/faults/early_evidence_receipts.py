"""The negative control: a server that receipts a file without having read it again.

``python -m tests.faults.early_evidence_receipts run --config FILE``. It believes what the chunks said when they came.
"""

from collections.abc import Sequence

from fleet_server import __main__ as program
from fleet_server import uploads
from fleet_server.evidence.finishing import Finished, Finisher
from fleet_server.evidence.inspection import Seen
from fleet_server.evidence.uploads import Upload


class TrustingFinisher(Finisher):
    """Takes the hashes of the chunks as they came for what the disk has."""

    def finish(self, upload: Upload, leaves: Sequence[bytes] = ()) -> Finished:
        """As the product's, but for the reading."""
        told = upload.manifest
        received = self._uploads.leaves(upload.upload)
        self._read_again = lambda _path, _chunk_bytes: Seen(told.size, told.sha256, received)
        return super().finish(upload, leaves)


if __name__ == "__main__":
    setattr(uploads, "Finisher", TrustingFinisher)  # noqa: B010 - what the program finishes with
    program.main()
