"""How much each device may have under way: simulated links, no clock."""

import itertools
from dataclasses import dataclass
from typing import Final

import pytest

from broker_config import limits
from fleet_server.evidence.windows import BUDGET_BYTES, SILENT_S, TURN_S, Windows

CHUNK: Final = 64 * limits.KIB
STEP_S: Final = 0.01


@dataclass
class Link:
    """A device with always something to send, over a link of so many bytes/s and so long a round."""

    name: str
    rate: float
    round_s: float = 0.02
    window: int = 0
    ask_s: float = 0.0
    sent: int = 0
    credit: float = 0.0
    queue_bytes_max: int = 0

    def step(self, windows: Windows, now_s: float) -> None:
        """What gets through in STEP_S: the link's rate, or a window a round."""
        if self.window == 0:
            if now_s >= self.ask_s:
                self._granted(windows, now_s)
            return
        self.credit = min(self.credit + min(self.rate, self.window / self.round_s) * STEP_S, float(self.window))
        self.queue_bytes_max = max(self.queue_bytes_max, self.window)
        done = int(self.credit) // CHUNK * CHUNK
        if not done:
            return
        self.credit -= done
        self.sent += done
        windows.durable(self.name, done, now_s)
        self._granted(windows, now_s)

    def _granted(self, windows: Windows, now_s: float) -> None:
        grant = windows.grant(self.name, CHUNK, now_s)
        self.window, self.ask_s = grant.window_bytes, now_s + grant.again_s
        if not self.window:
            self.credit = 0.0


def run(windows: Windows, links: list[Link], seconds: float, *, from_s: float = 0.0) -> None:
    now_s = from_s
    while now_s < from_s + seconds:
        now_s += STEP_S
        for link in links:
            link.step(windows, now_s)
        for name in windows.look(now_s):
            for link in links:
                if link.name == name and not link.window:
                    link.ask_s = now_s
        assert windows.granted_bytes <= BUDGET_BYTES
        assert windows.granted_bytes == sum(link.window for link in links)


@pytest.mark.parametrize("rate", [125_000, 1_000_000, 10_000_000, 50_000_000])
def test_a_window_settles_at_a_quarter_second_of_what_the_link_takes(rate: int) -> None:
    windows, link = Windows(), Link("a", rate)
    run(windows, [link], 20)
    wanted = max(CHUNK, min(limits.UPLOAD_WINDOW_S * rate, limits.UPLOAD_WINDOW_BYTES_MAX))
    assert 0.7 * wanted <= link.window <= 1.5 * wanted
    assert link.sent >= 0.8 * 20 * rate


def test_a_link_that_became_slow_is_believed_within_a_few_chunks() -> None:
    windows, link = Windows(), Link("a", 10_000_000)
    run(windows, [link], 5)
    assert link.window > 1_000_000
    link.rate = 20_000  # a chunk takes three seconds
    run(windows, [link], 15, from_s=5)
    assert link.window == CHUNK


def test_a_window_begins_with_one_chunk_and_grows_fourfold_at_most() -> None:
    windows, link = Windows(), Link("a", 50_000_000)
    seen = [windows.grant("a", CHUNK, 0.0).window_bytes]
    link.window = seen[0]
    for step in range(1, 500):
        link.step(windows, step * STEP_S)
        seen.append(link.window)
    assert seen[0] == CHUNK
    assert all(after <= 4 * before for before, after in itertools.pairwise(seen))
    assert seen[-1] > 40 * CHUNK


def test_windows_fill_a_fast_link_within_a_quarter_second() -> None:
    windows, link = Windows(), Link("a", 200_000_000, 0.01)
    run(windows, [link], 0.25)
    assert link.window == limits.UPLOAD_WINDOW_BYTES_MAX


def test_what_came_before_a_window_was_given_does_not_count_for_it() -> None:
    """A broker that held chunks for a server that was away gives them all at once."""
    windows = Windows()
    windows.durable("a", 40 * CHUNK, 0.0)
    windows.durable("a", 40 * CHUNK, 0.01)
    assert [windows.grant("a", CHUNK, 0.02 + n / 100).window_bytes for n in range(3)] == [CHUNK] * 3


def test_fifty_four_devices_at_a_dock_share_and_none_starves() -> None:
    windows = Windows()
    links = [Link(f"cam-{n}", 3_000_000) for n in range(54)]
    run(windows, links, 60)
    assert min(link.sent for link in links) > 0.5 * max(link.sent for link in links)


def test_more_devices_than_there_is_room_for_take_turns() -> None:
    budget = 8 * limits.CHUNK_BYTES_MAX
    windows = Windows(budget_bytes=budget)
    links = [Link(f"cam-{n}", 500_000) for n in range(40)]
    run(windows, links, 12 * TURN_S)
    assert min(link.sent for link in links) > 0
    assert min(link.sent for link in links) > 0.2 * max(link.sent for link in links)


def test_the_sites_rate_holds() -> None:
    windows = Windows(rate_bytes_s=2_000_000)
    links = [Link(f"cam-{n}", 5_000_000) for n in range(6)]
    run(windows, links, 60)
    assert sum(link.sent for link in links) < 1.15 * 60 * 2_000_000
    assert sum(link.sent for link in links) > 0.5 * 60 * 2_000_000
    assert min(link.sent for link in links) > 0


def test_who_falls_silent_gives_its_window_back() -> None:
    windows = Windows(budget_bytes=CHUNK)
    assert windows.grant("a", CHUNK, 0.0).window_bytes == CHUNK
    waits = windows.grant("b", CHUNK, 1.0)
    assert (waits.window_bytes, waits.again_s > 0) == (0, True)
    windows.look(SILENT_S + 0.5)
    assert windows.grant("b", CHUNK, SILENT_S + 0.6).window_bytes == CHUNK


def test_who_has_nothing_to_send_holds_no_window() -> None:
    windows = Windows()
    windows.grant("a", CHUNK, 0.0)
    windows.rest("a")
    assert windows.granted_bytes == 0
