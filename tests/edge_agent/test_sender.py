"""However a link loses, repeats and delays, every chunk arrives, and never more than the window is under way."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config.device_classes import Priority
from broker_config.limits import CHUNK_BYTES_MAX, KIB, OPEN_UPLOADS_MAX
from broker_config.ranges import RangeSet, minus
from broker_config.transfer import Code, Reject, State
from edge_agent.link_rules import METERED, NO_LIMIT, Allowed
from edge_agent.sender import ASK_S_MAX, REFUSED_S, Asking, Offering, Sender, Sending, Telling, Upload

CHUNK = 16 * KIB
ROOM = 1 << 30


def upload(n: int, chunks: int = 4, priority: Priority = Priority.ROUTINE) -> Upload:
    return Upload(f"{n:032x}", chunks * CHUNK - 5, CHUNK, priority)


def state(of: Upload, missing: tuple[tuple[int, int], ...], window: int = 4 * CHUNK, **more: object) -> State:
    return State(1, of.upload, missing, window, **more)  # type: ignore[arg-type]


def connected(*uploads: Upload) -> Sender:
    sender = Sender()
    sender.connected(0.0)
    for each in uploads:
        sender.add(each, 0.0)
    return sender


def chunks(sender: Sender, now_s: float, allowed: Allowed = NO_LIMIT, room: int = ROOM) -> list[tuple[str, int]]:
    return [(a.upload, a.number) for a in sender.take(now_s, room, allowed) if isinstance(a, Sending)]


class Server:
    """Has what arrived, and says so within a window."""

    def __init__(self, uploads: list[Upload], window: int) -> None:
        self.uploads = {each.upload: each for each in uploads}
        self.has = {each.upload: RangeSet() for each in uploads}
        self.window = window

    def missing(self, name: str) -> tuple[tuple[int, int], ...]:
        return minus(((0, self.uploads[name].chunks - 1),), self.has[name].ranges())

    def word(self, name: str, ranges_max: int) -> State:
        missing = self.missing(name)
        return State(1, name, missing[:ranges_max], self.window, more=len(missing) > ranges_max)

    def done(self) -> bool:
        return not any(self.missing(name) for name in self.uploads)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    window=st.integers(1, 12),
    loss=st.floats(0, 0.4),
    ranges_max=st.integers(1, 4),
)
def test_every_chunk_arrives_and_the_window_holds(
    seed: int, sizes: list[int], window: int, loss: float, ranges_max: int
) -> None:
    draw = random.Random(seed)
    uploads = [upload(n, size, draw.choice(list(Priority))) for n, size in enumerate(sizes)]
    server = Server(uploads, window * CHUNK)
    sender = connected(*uploads)
    up: deque[object] = deque()
    down: deque[State] = deque()
    now_s = 0.0
    for _ in range(40_000):
        if server.done():
            break
        now_s += draw.choice((0.0, 0.01, 0.5, 3.0))
        if draw.random() < 0.01:
            sender.connected(now_s)
        up.extend(sender.take(now_s, ROOM, NO_LIMIT))
        assert sender.under_way <= window * CHUNK
        for queue in (up, down):
            if len(queue) > 1 and draw.random() < 0.2:
                queue.rotate(1)
        for _ in range(min(len(up), draw.randrange(4))):
            action = up.popleft()
            if draw.random() < loss:
                continue
            if draw.random() < 0.1:
                up.append(action)
            name = action.upload  # type: ignore[attr-defined]
            if isinstance(action, Sending):
                server.has[name].add(action.number)
            down.append(server.word(name, ranges_max))
        if down and draw.random() > loss:
            sender.told(down.popleft(), now_s)
        elif down:
            down.popleft()
    assert server.done()


def test_a_silent_server_gets_one_window_and_ever_rarer_questions() -> None:
    one = upload(1, 100)
    sender = connected(one)
    assert sender.take(0.0, ROOM, NO_LIMIT) == [Offering(one.upload)]
    sender.told(state(one, ((0, 99),)), 0.1)
    assert len(chunks(sender, 0.1)) == 4
    asked = []
    for tenth in range(2, 6_000):
        actions = sender.take(tenth / 10, ROOM, NO_LIMIT)
        assert all(isinstance(action, Asking) for action in actions)
        asked += [tenth / 10] * len(actions)
    assert 5 < len(asked) < 20
    assert asked[-1] - asked[-2] <= ASK_S_MAX + 0.2


def test_only_what_is_missing_and_old_is_sent_again() -> None:
    one = upload(1, 8)
    sender = connected(one)
    sender.told(state(one, ((0, 7),)), 0.0)
    assert [n for _, n in chunks(sender, 0.0)] == [0, 1, 2, 3]
    sender.told(state(one, ((0, 0), (3, 7))), 1.0)  # 1 and 2 are durable; 0 may still be on its way
    assert [n for _, n in chunks(sender, 1.0)] == [4, 5]
    sender.told(state(one, ((0, 0), (3, 7))), 5.0)
    assert [n for _, n in chunks(sender, 5.0)] == [0, 3, 4, 5]


def test_an_alarm_goes_first_and_the_others_share_eight_to_four_to_one() -> None:
    of = {priority: upload(n, 20_000, priority) for n, priority in enumerate(Priority)}
    sender = connected(of[Priority.FLAGGED], of[Priority.ROUTINE], of[Priority.LOG])
    for each in of.values():
        sender.told(state(each, ((0, 19_999),), 1 << 24), 0.0)
    sent = [name for name, _ in chunks(sender, 0.0, room=832 * CHUNK)]
    counts = [sent.count(of[p].upload) for p in (Priority.FLAGGED, Priority.ROUTINE, Priority.LOG)]
    assert counts == [512, 256, 64]
    sender.add(of[Priority.ALARM], 0.0)
    sender.told(state(of[Priority.ALARM], ((0, 2),), 1 << 24), 0.0)
    assert [name for name, _ in chunks(sender, 0.0, room=3 * CHUNK)] == [of[Priority.ALARM].upload] * 3


def test_there_is_always_room_for_what_is_more_urgent() -> None:
    sender = connected()
    n = 0
    for priority in (Priority.LOG, Priority.ROUTINE, Priority.FLAGGED, Priority.ALARM):
        assert sender.room(priority, 0.0) > 0
        while sender.room(priority, 0.0):
            n += 1
            sender.add(upload(n, priority=priority), 0.0)
    assert len(sender.open) == OPEN_UPLOADS_MAX


def test_a_rate_is_kept_and_a_link_carries_only_what_it_is_for() -> None:
    one, log = upload(1, 1_000), upload(2, 10, Priority.LOG)
    sender = connected(one, log)
    for each in (one, log):
        sender.told(state(each, ((0, each.chunks - 1),), 1 << 24), 0.0)
    allowed = Allowed(2 * CHUNK, frozenset({Priority.ROUTINE}))
    sent = [name for tenth in range(600) for name, _ in chunks(sender, tenth / 10, allowed)]
    assert set(sent) == {one.upload}
    assert 2 * 60 - 2 <= len(sent) <= 2 * 60 + CHUNK_BYTES_MAX // CHUNK


@pytest.mark.parametrize(
    ("reject", "held", "again_s"),
    [
        (Reject(1, "", Code.DISK, 30), True, 30.0),
        (Reject(1, "", Code.BUSY), True, 1.0),
        (Reject(1, "", Code.SIZE, 30), False, 30.0),
        (Reject(1, "", Code.POLICY), False, REFUSED_S),  # nobody vouches for it: never is not for ever
    ],
)
def test_a_refusal_puts_off(reject: Reject, *, held: bool, again_s: float) -> None:
    one = upload(1)
    sender = connected(one)
    assert sender.told(Reject(1, one.upload, reject.code, reject.again_s), 0.0) is reject.code
    assert one.upload not in sender.open
    assert (sender.room(Priority.ROUTINE, 0.5) == 0) is held
    assert sender.put_off(again_s - 0.1) == {one.upload}
    assert sender.put_off(again_s) == frozenset()


def test_hashes_are_told_in_parts() -> None:
    one = upload(1, 150)
    sender = connected(one)
    sender.told(state(one, (), leaves=True), 0.0)
    told = [a for _ in range(4) for a in sender.take(0.0, ROOM, NO_LIMIT) if isinstance(a, Telling)]
    assert [(each.first, each.last) for each in told] == [(0, 63), (64, 127), (128, 149)]


def test_a_chunk_that_the_window_is_too_small_for_goes_alone() -> None:
    one = upload(1, 8)
    sender = connected(one)
    sender.told(state(one, ((0, 7),), 100), 0.0)
    assert len(chunks(sender, 0.0)) == 1
    sender.told(state(one, ((0, 7),), 0), 9.0)
    assert chunks(sender, 9.0) == []  # a pause is a pause


def test_what_somebody_asks_for_overtakes_and_is_offered_again_with_its_new_priority() -> None:
    slow, asked = upload(1, 40), upload(2, 40)
    sender = connected(slow, asked)
    sender.take(0.0, 0, NO_LIMIT)
    for each in (slow, asked):
        sender.told(state(each, ((0, 39),), 80 * CHUNK), 0.1)
    sender.prefer(asked.upload, Priority.FLAGGED, 0.2)
    actions = sender.take(0.2, 12 * CHUNK, Allowed(None, METERED))
    assert Offering(asked.upload) in actions
    assert {action.upload for action in actions if isinstance(action, Sending)} == {asked.upload}


def test_what_was_put_off_is_offered_when_somebody_asks_for_it() -> None:
    sender = connected()
    sender.put_off_until(upload(1).upload, 1_000.0)
    sender.prefer(upload(1).upload, Priority.FLAGGED, 0.0)
    assert sender.put_off(0.0) == frozenset()
