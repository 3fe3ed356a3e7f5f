"""The device's twin in a file, and what was confirmed last in another.

A file and no database: the whole of it is small, is replaced at each step, is read once a run, and can be read by
people; a connection that stays open costs memory that the agent does not have.
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from broker_config.limits import KIB
from broker_config.text import shown
from edge_agent.adapters.files import set_aside, write_durably
from edge_agent.adapters.transaction import Failpoint
from edge_agent.changing import Kept, Stage

logger = logging.getLogger(__name__)

TWIN_NAME: Final = "twin.json"
GOOD_NAME: Final = "twin.good.json"
KEPT_BYTES_MAX: Final = 1024 * KIB
"""Four documents of the largest size that an order can have, and room."""


class TwinFile:
    """Calls come one after the other."""

    def __init__(self, state_dir: Path, failpoint: Failpoint) -> None:
        self._path = state_dir / TWIN_NAME
        self._good = state_dir / GOOD_NAME
        self._failpoint = failpoint

    def load(self) -> Kept:
        """What was stored. A damaged file is set aside, and what was confirmed last is taken instead; where that is
        not there either, nothing was ever taken up: the server is asked. Raises OSError.
        """
        for path in (self._path, self._good):
            try:
                return _read(path)
            except FileNotFoundError:
                continue
            except (msgspec.MsgspecError, ValueError) as error:
                aside = set_aside(path)
                logger.error("twin damaged, set aside", extra={"why": shown(error), "aside": aside})  # noqa: TRY400
        return Kept()

    def save(self, kept: Kept, *, good: bool) -> None:
        """Durable once it returns. *good*: it was just confirmed. Raises OSError: what was stored is as it was."""
        data = msgspec.json.encode(kept)
        self._failpoint(f"before {kept.stage}")
        write_durably(self._path, data, 0o600)
        self._failpoint(f"after {kept.stage}")
        if good:
            write_durably(self._good, data, 0o600)
            self._failpoint("after good")


def _read(path: Path) -> Kept:
    with path.open("rb") as file:
        data = file.read(KEPT_BYTES_MAX + 1)
    if len(data) > KEPT_BYTES_MAX:
        raise ValueError(f"expected at most {KEPT_BYTES_MAX} bytes")
    kept = msgspec.json.decode(data, type=Kept)
    if (kept.trying is None) != (kept.stage is Stage.IDLE):
        raise ValueError(f"expected a desired version in every stage but idle, and it is {kept.stage}")
    return kept
