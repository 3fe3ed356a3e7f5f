"""What is told of the server itself, and when it judges the fleet."""

from dataclasses import replace
from typing import Final

import pytest

from fleet_server.outbound.server_watch import ServerTold, ServerWatch
from fleet_server.telemetry.view import IngestFacts

T0: Final = 1_767_254_400_000
FACTS: Final = IngestFacts(1, True, 0, 0, 0, 0, 0, 0, 0, 0, 0)
QUARANTINE: Final = 1_000


class Scene:
    """A watch and the facts it sees each second."""

    def __init__(self, *, first_settle_ms: int = 90_000) -> None:
        self.watch = ServerWatch(
            ServerTold(), quarantine_bytes_max=QUARANTINE, settle_ms=90_000, first_settle_ms=first_settle_ms
        )
        self.now_ms = T0

    def look(self, seconds: int = 1, *, connected: bool = True, **facts: int) -> list[str]:
        told: list[str] = []
        for _ in range(seconds):
            self.now_ms += 1_000
            look = self.watch.look(replace(FACTS, connected=connected, **facts), self.now_ms)
            told += [each.kind.value for each in look.news]
            self.watch.accept(look)
        return told

    @property
    def judging(self) -> bool:
        return self.watch.judging(self.now_ms)


def test_a_broker_that_is_away_for_long_is_lost_once_and_back_once() -> None:
    scene = Scene()
    assert scene.look(9, connected=False) == []
    assert scene.look(60, connected=False) == ["broker.lost"]
    assert scene.look(60) == ["broker.back"]


def test_a_broker_that_is_back_at_once_was_never_away() -> None:
    scene = Scene()
    assert scene.look(9, connected=False) + scene.look(9) + scene.look(9, connected=False) == []


def test_a_store_that_takes_nothing_is_told_until_it_takes() -> None:
    scene = Scene()
    assert scene.look(5, commits=7) == []
    assert scene.look(1, commits=7, commit_failures=1) == ["store.refusing"]
    assert scene.look(5, commits=7, commit_failures=3) == []
    assert scene.look(5, commits=8, commit_failures=3) == ["store.taking"]
    assert scene.look(5, commits=8, commit_failures=3) == []


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ([790, 800, 850, 810], 1),
        ([800, 999, 1_000, 1_200], 2),  # full is told again
        ([800, 700, 800, 610, 800], 1),  # not calm between
        ([800, 599, 800], 2),
        ([599, 1_000], 1),
    ],
)
def test_quarantine_is_told_at_each_step_until_it_is_calm_again(fill: list[int], expected: int) -> None:
    scene = Scene()
    told = [kind for size in fill for kind in scene.look(2, quarantine_bytes=size)]
    assert told == ["quarantine.filling"] * expected


def test_nobody_is_judged_before_the_server_has_heard_for_long_enough() -> None:
    scene = Scene()
    scene.look(5, connected=False)
    assert not scene.judging
    scene.look(90)
    assert not scene.judging
    scene.look(1)
    assert scene.judging
    scene.look(1, connected=False)
    assert not scene.judging
    scene.look(91)
    assert scene.judging
    scene.look(1, commit_failures=1)
    assert not scene.judging


def test_a_new_site_is_judged_at_once_and_settles_after_its_first_loss() -> None:
    scene = Scene(first_settle_ms=0)
    scene.look(1)
    assert scene.judging
    scene.look(1, connected=False)
    scene.look(10)
    assert not scene.judging
