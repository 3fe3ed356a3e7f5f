"""What benchmarks send."""

import random
from typing import Final

PIECE_BYTES: Final = 1024 * 1024


def data_of(seed: int, size: int) -> bytes:
    """Random bytes, the same in every process; *size* may be more than is drawn at once."""
    rng = random.Random(seed)
    return b"".join(rng.randbytes(min(PIECE_BYTES, size - at)) for at in range(0, size, PIECE_BYTES))
