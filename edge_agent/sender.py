"""Decides which parts of which files go out next, and what is asked of the server about them.

Rule 1: only the server knows how far a file is. Nothing of that is written down here; a new connection, or another
server, is asked from the beginning.
Rule 2: what was sent and is not known to be durable is under way, and of all files together that is never more than
the window of the server's last word. Only a word of the server moves it: while it is silent, nothing more goes out.
Rule 3: nobody vouches for what is heard here. It can make the device wait, ask, and send again; an upload ends only
by what :class:`edge_agent.outbox.Outbox` has: a receipt, or a file that is not there any more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from broker_config import limits
from broker_config.device_classes import Priority
from broker_config.ranges import Range, from_numbers, minus, normal
from broker_config.transfer import Code, Reject, State
from edge_agent.link_rules import NO_LIMIT, Allowed

SHARES: Final[Mapping[Priority, int]] = {Priority.FLAGGED: 8, Priority.ROUTINE: 4, Priority.LOG: 1}
"""Of what an alarm leaves."""
OPEN_MAX: Final[Mapping[Priority, int]] = {
    Priority.LOG: 2,
    Priority.ROUTINE: 5,
    Priority.FLAGGED: 7,
    Priority.ALARM: limits.OPEN_UPLOADS_MAX,
}
"""Open ones of this priority and below it: there is always room for what is more urgent."""
ASK_S_MAX: Final = 60.0
"""While the server is silent, questions come this far apart at most."""
REFUSED_S: Final = 3_600.0
"""What the server says it never takes is offered again after this: a stranger may have said it."""
HELD_S_MIN: Final = 1.0
LATER_MAX: Final = 256
"""Uploads that are put off each for itself; beyond it the oldest is offered sooner than it was told."""
SMOOTHING: Final = 0.125
"""Of the time from a chunk to the word that it is durable. Source: RFC 6298."""
LEAVES_AT_ONCE: Final = 64
"""Hashes in one message: so many chunks are read for it."""

_FOR_ALL: Final = frozenset({Code.QUOTA, Code.DISK, Code.BUSY})


class Upload(NamedTuple):
    """A sealed file."""

    upload: str
    size: int
    chunk_bytes: int
    priority: Priority

    @property
    def chunks(self) -> int:
        """How many there are; they are counted from 0."""
        return -(-self.size // self.chunk_bytes)

    def chunk_size(self, number: int) -> int:
        """Of one of them."""
        return min(self.chunk_bytes, self.size - number * self.chunk_bytes)


class Offering(NamedTuple):
    """Say that there is this file."""

    upload: str


class Asking(NamedTuple):
    """Ask how far it is."""

    upload: str


class Sending(NamedTuple):
    """Send this part of it."""

    upload: str
    number: int


class Telling(NamedTuple):
    """Say the hashes of these chunks."""

    upload: str
    first: int
    last: int


Action: TypeAlias = Offering | Asking | Sending | Telling


class _Sent(NamedTuple):
    at_s: float
    again: bool


@dataclass(slots=True)
class _Open:
    """``todo``: told to be missing, and not under way. ``told``: whether the server has spoken of it since it was
    last offered; ``high``: chunks from here on were never sent on this connection.
    """

    upload: Upload
    ask_s: float
    wait_s: float
    todo: list[Range] = field(default_factory=list)
    flying: dict[int, _Sent] = field(default_factory=dict)
    told: bool = False
    complete: bool = False
    high: int = 0
    leaves: int | None = None

    def forget(self, now_s: float) -> None:
        """As if never offered."""
        self.ask_s, self.wait_s = now_s, limits.UPLOAD_WAIT_S
        self.todo, self.told, self.complete, self.high, self.leaves = [], False, False, 0, None
        self.flying.clear()


class Sender:
    """Times are seconds of any clock that never jumps."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._later: dict[str, float] = {}
        self._online = False
        self._window = 0
        self._under_way = 0
        self._hold_s = 0.0
        self._srtt_s: float | None = None
        self._deficit = dict.fromkeys(SHARES, 0)
        self._turn = 0
        self._tokens = 0.0
        self._tokens_s = 0.0
        self._short_s: float | None = None
        self._allowed = NO_LIMIT
        self.window_told = 0
        """The last window that was none of a pause; 0 before the first. Chunks of files to come fit into it."""

    # What is open -----------------------------------------------------------------------------------------------

    @property
    def open(self) -> frozenset[str]:
        """The uploads that are offered."""
        return frozenset(self._open)

    @property
    def under_way(self) -> int:
        """Bytes that were sent and are not known to be durable."""
        return self._under_way

    @property
    def rto_s(self) -> float:
        """A chunk that is older, and missing, is sent again."""
        return max(limits.UPLOAD_WAIT_S, 4 * (self._srtt_s or 0.0))

    def put_off(self, now_s: float) -> frozenset[str]:
        """Uploads that are not to be offered yet."""
        for upload in [upload for upload, at_s in self._later.items() if at_s <= now_s]:
            del self._later[upload]
        if self._hold_s <= now_s:
            self._hold_s = 0.0
        return frozenset(self._later)

    def room(self, priority: Priority, now_s: float) -> int:
        """How many more of *priority* may be opened now."""
        if not self._online or now_s < self._hold_s:
            return 0
        order = list(OPEN_MAX)
        below = order[: order.index(priority) + 1]
        taken = sum(1 for each in self._open.values() if each.upload.priority in below)
        return max(0, min(OPEN_MAX[priority] - taken, limits.OPEN_UPLOADS_MAX - len(self._open)))

    def add(self, upload: Upload, now_s: float) -> None:
        """Open it: it will be offered."""
        self._open.setdefault(upload.upload, _Open(upload, now_s, limits.UPLOAD_WAIT_S))

    def prefer(self, upload: str, priority: Priority, now_s: float) -> None:
        """Somebody asked for it: it goes with this priority from now on, and is put off no more."""
        self._later.pop(upload, None)
        found = self._open.get(upload)
        if found is not None and found.upload.priority is not priority:
            found.upload = found.upload._replace(priority=priority)
            found.told = False  # the server hears of it by another offer
            found.ask_s, found.wait_s = now_s, limits.UPLOAD_WAIT_S

    def drop(self, upload: str) -> None:
        """It is receipted, or cannot be sent any more."""
        found = self._open.pop(upload, None)
        if found is not None:
            self._land(found, list(found.flying))
        self._later.pop(upload, None)

    def put_off_until(self, upload: str, at_s: float) -> None:
        """Not before *at_s*, and another one in its place."""
        self.drop(upload)
        while len(self._later) >= LATER_MAX:
            del self._later[next(iter(self._later))]
        self._later[upload] = at_s

    # The connection ---------------------------------------------------------------------------------------------

    def connected(self, now_s: float) -> None:
        """A new connection: what was under way may be lost."""
        self._online = True
        self._window, self._hold_s = 0, 0.0
        self.server_changed(now_s)

    def disconnected(self) -> None:
        """Nothing goes out until the next one."""
        self._online = False

    def server_changed(self, now_s: float) -> None:
        """Another server, or one that began anew: everything is offered again."""
        self._under_way = 0
        for each in self._open.values():
            each.forget(now_s)

    # What the server says ---------------------------------------------------------------------------------------

    def told(self, message: State | Reject, now_s: float) -> Code | None:
        """Take its word; returns why, if the upload was not taken."""
        found = self._open.get(message.upload)
        if found is None:
            return None
        if isinstance(message, Reject):
            return self._rejected(found, message, now_s)
        self._window = message.window_bytes
        self.window_told = message.window_bytes or self.window_told
        last = found.upload.chunks - 1
        missing = normal((low, min(high, last)) for low, high in message.missing)
        horizon = (missing[-1][1] if missing else -1) if message.more else last
        landed = [
            number for number, sent in found.flying.items() if self._landed(number, sent, missing, horizon, now_s)
        ]
        self._land(found, landed)
        found.todo = list(minus(missing, from_numbers(found.flying)))
        found.told, found.complete = True, not missing and not message.more
        found.wait_s = min(ASK_S_MAX, 2 * found.wait_s) if found.complete else self.rto_s
        found.ask_s = now_s + max(found.wait_s, float(message.again_s) if message.window_bytes == 0 else 0.0)
        if message.leaves and found.leaves is None:
            found.leaves = 0
        return None

    def _landed(self, number: int, sent: _Sent, missing: tuple[Range, ...], horizon: int, now_s: float) -> bool:
        """Whether a chunk is under way no more: durable, or old and known to be lost, or old and of unknown fate."""
        old = now_s - sent.at_s >= self.rto_s
        if number > horizon or any(low <= number <= high for low, high in missing):
            return old
        if not sent.again:
            took_s = now_s - sent.at_s
            self._srtt_s = took_s if self._srtt_s is None else self._srtt_s + SMOOTHING * (took_s - self._srtt_s)
        return True

    def _land(self, found: _Open, numbers: list[int]) -> None:
        for number in numbers:
            del found.flying[number]
            self._under_way -= found.upload.chunk_size(number)

    def _rejected(self, found: _Open, message: Reject, now_s: float) -> Code:
        if message.code is Code.UNKNOWN:  # of a question; an offer is never answered so
            found.told, found.complete, found.todo = False, False, []
            self._land(found, list(found.flying))
            found.ask_s = max(now_s, min(found.ask_s, now_s + self.rto_s))
        elif message.code in _FOR_ALL:
            self._hold_s = now_s + max(HELD_S_MIN, float(message.again_s))
            self.put_off_until(message.upload, self._hold_s)
        else:
            self.put_off_until(message.upload, now_s + (float(message.again_s) or REFUSED_S))
        return message.code

    # What goes out ----------------------------------------------------------------------------------------------

    def take(self, now_s: float, room_bytes: int, allowed: Allowed) -> list[Action]:
        """What goes out now, in this order; counted as sent.

        Args:
            now_s: the time.
            room_bytes: what the connection takes of chunks before others would have to wait for them.
            allowed: what the link is for at this hour.
        """
        if not self._online:
            return []
        self._allowed = allowed
        out: list[Action] = list(self._questions(now_s, allowed))
        self._refill(now_s, allowed)
        self._short_s = None
        while room_bytes > 0:
            found = self._next(allowed)
            if found is None:
                break
            size = found.upload.chunk_size(found.todo[0][0])
            if not self._fits(size, now_s, allowed):
                self._charge(found.upload.priority, -size)
                break
            out.append(Sending(found.upload.upload, self._send(found, now_s, size)))
            room_bytes -= size
        return out

    def _fits(self, size: int, now_s: float, allowed: Allowed) -> bool:
        # one chunk always may, or a window that became smaller than a chunk would stop its file for ever
        if self._window == 0 or (self._under_way and self._under_way + size > self._window):
            return False
        if allowed.bytes_per_s is None:
            return True
        if self._tokens < size:
            self._short_s = now_s + (size - self._tokens) / allowed.bytes_per_s
            return False
        self._tokens -= size
        return True

    def _send(self, found: _Open, now_s: float, size: int) -> int:
        low, high = found.todo[0]
        found.todo[:1] = [(low + 1, high)] if low < high else []
        if not found.flying:
            found.ask_s = now_s + self.rto_s
        found.flying[low] = _Sent(now_s, low < found.high)
        found.high = max(found.high, low + 1)
        self._under_way += size
        return low

    def _questions(self, now_s: float, allowed: Allowed) -> Iterator[Action]:
        for upload, found in self._open.items():
            if found.upload.priority not in allowed.priorities:
                continue
            if found.leaves is not None:
                count = min(LEAVES_AT_ONCE, found.upload.chunks - found.leaves)
                yield Telling(upload, found.leaves, found.leaves + count - 1)
                done = found.leaves + count >= found.upload.chunks
                found.leaves = None if done else found.leaves + count
            if now_s < found.ask_s or self._waits_its_turn(found):
                continue
            found.ask_s = now_s + found.wait_s
            found.wait_s = min(ASK_S_MAX, 2 * found.wait_s)
            yield Asking(upload) if found.told and not found.complete else Offering(upload)

    def _waits_its_turn(self, found: _Open) -> bool:
        """There is nothing to ask: it could send, and others go first."""
        return bool(found.told and found.todo and not found.flying and self._window)

    def _refill(self, now_s: float, allowed: Allowed) -> None:
        rate = allowed.bytes_per_s
        if rate is None:
            return
        most = max(float(rate), float(limits.CHUNK_BYTES_MAX))
        self._tokens = min(most, self._tokens + max(0.0, now_s - self._tokens_s) * rate)
        self._tokens_s = now_s

    def _next(self, allowed: Allowed) -> _Open | None:
        """Whose chunk is next: an alarm's, or by deficit round robin; charged for it."""
        first: dict[Priority, _Open] = {}
        for each in self._open.values():
            if each.todo and each.upload.priority in allowed.priorities:
                first.setdefault(each.upload.priority, each)
        if Priority.ALARM in first or not first:
            return first.get(Priority.ALARM)
        order = list(SHARES)
        while True:
            priority = order[self._turn]
            found = first.get(priority)
            if found is not None:
                size = found.upload.chunk_size(found.todo[0][0])
                if self._deficit[priority] >= size:
                    self._charge(priority, size)
                    return found
            else:
                self._deficit[priority] = 0
            self._turn = (self._turn + 1) % len(order)
            self._deficit[order[self._turn]] += SHARES[order[self._turn]] * limits.CHUNK_BYTES_MAX

    def _charge(self, priority: Priority, size: int) -> None:
        if priority in self._deficit:
            self._deficit[priority] -= size

    def next_s(self) -> float | None:
        """When time alone makes something due; None: not before the server speaks."""
        if not self._online:
            return None
        asking = [each for each in self._open.values() if each.upload.priority in self._allowed.priorities]
        dues = [each.ask_s for each in asking if not self._waits_its_turn(each)]
        dues += [0.0 for each in asking if each.leaves is not None]
        dues += self._later.values()
        dues += [self._hold_s] if self._hold_s else []
        dues += [self._short_s] if self._short_s is not None else []
        return min(dues, default=None)
