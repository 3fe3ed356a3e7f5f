"""A bucket for readings of another time than is believed or kept: of a clock that is wrong, or of long ago.

They are there under the time that they say, so that a wrong clock can be looked at, and are kept for ever, in few
large shards. Nobody waits for them: what is not taken at once is left out, and counted.
"""

from collections.abc import Callable
from typing import Final

from fleet_server.projection.feed import LeftOut
from fleet_server.projection.points import Lines, packed
from fleet_server.projection.tally import Tally, told
from fleet_server.projection.target import PrepareError, Target
from fleet_server.projection.verdict import Verdict, verdict

POST_BYTES_MAX: Final = 1024 * 1024
SHARD_D: Final = 364
"""Of one shard: a clock may say any year, and each shard costs InfluxDB memory."""


class LateBucket:
    """One task; *new_target* is called in the loop that uses it."""

    def __init__(self, new_target: Callable[[], Target], points_max: int) -> None:
        self._new_target = new_target
        self._points_max = points_max
        self._target: Target | None = None
        self._prepared = False
        self._waiting: list[tuple[Lines, list[LeftOut]]] = []

    def add(self, lines: Lines, left: list[LeftOut]) -> None:
        """*left*: why they are here; they are bounded as what is written together is."""
        if not lines.points:  # and counted already
            return
        self._waiting.append((lines, left))

    async def write(self, tally: Tally, now_ms: int) -> None:
        """What waits, as far as it is taken at once."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if self._target is None:
            self._target = self._new_target()
        why = await self._written([lines for lines, _ in waiting])
        if why:
            tally.note(why, now_ms)
            for _, left in waiting:
                tally.leave_out(left)
        else:
            tally.late += sum(one.points for _, left in waiting for one in left)

    async def _written(self, lines: list[Lines]) -> str:
        """Empty: all of it is taken."""
        assert self._target is not None
        if not self._prepared:
            try:
                await self._target.prepare()
            except PrepareError as error:
                return str(error)
            self._prepared = True
        for body in packed(lines, points_max=self._points_max, bytes_max=POST_BYTES_MAX):
            answer = await self._target.write(body.data)
            if verdict(answer) is not Verdict.WRITTEN:
                self._prepared = False
                return told(answer)
        return ""

    async def close(self) -> None:
        """Let go of the connections."""
        if self._target is not None:
            await self._target.close()
        self._target, self._prepared = None, False
