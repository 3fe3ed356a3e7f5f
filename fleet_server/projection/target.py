"""Where points are written: a time-series server. This is the port."""

from typing import Final, NamedTuple, Protocol

NO_ANSWER: Final = 0
"""Status of a server that could not be reached, hung up, or took too long."""


class Answer(NamedTuple):
    """What the server said. ``retry_after``: that header as it came, empty if there is none; ``text``: why not.

    ``fresh``: on a new connection; it may be another process than the one that answered before.
    """

    status: int
    retry_after: str = ""
    text: str = ""
    fresh: bool = False


class PrepareError(Exception):
    """The bucket could not be found or made; the message says what to do. ``answer``: what the server said."""

    def __init__(self, text: str, answer: Answer) -> None:
        super().__init__(text)
        self.answer = answer


class Target(Protocol):
    """For one task at a time. Points of the same series and time replace each other there."""

    async def prepare(self) -> None:
        """Make the bucket, its retention and what InfluxQL needs, as far as they are not there. Repeats safely.

        Raises:
            PrepareError
        """

    async def write(self, body: bytes) -> Answer:
        """Write lines; never raises for what the server or the network does."""

    async def close(self) -> None:
        """Let go of the connections."""
