"""A device says what is so until the server knows it, and nobody can make it say or ask without end."""

import itertools

from edge_agent.reporting import AGAIN_S_MAX, ASK_S_MIN, SOON_S, Reporting


def connected(version: int = 10) -> Reporting:
    found = Reporting()
    found.changed(version, 0.0, soon=False)
    found.connected(0.0)
    return found


def test_on_each_connection_it_asks_and_reports() -> None:
    found = connected()
    assert found.due(0.0, ready=True) == (True, True)
    assert found.due(0.1, ready=True) == (False, False)
    found.disconnected()
    assert found.next_s(ready=True) is None
    found.connected(1.0)
    assert found.due(1.0, ready=True) == (True, True)


def test_what_brings_nothing_is_said_again_ever_more_seldom() -> None:
    found, now_s, said = connected(), 0.0, []
    while now_s < 4_000:
        if found.due(now_s, ready=True) == (True, True):
            said.append(now_s)
        next_s = found.next_s(ready=True)
        assert next_s is not None
        now_s = max(now_s + 0.001, next_s)
    pauses = [later - sooner for sooner, later in itertools.pairwise(said)]
    assert [round(pause) for pause in pauses[:7]] == [5, 10, 20, 40, 80, 160, 300]
    assert max(pauses) <= AGAIN_S_MAX + 0.01


def test_it_is_silent_when_the_server_knows() -> None:
    found = connected()
    found.due(0.0, ready=True)
    found.told(desired=0, reported=10, have=0, now_s=0.1)
    assert found.next_s(ready=True) is None
    assert found.known == 10


def test_word_of_another_report_is_no_word_of_this_one() -> None:
    found = connected()
    found.due(0.0, ready=True)
    found.told(desired=0, reported=9, have=0, now_s=0.1)
    assert found.next_s(ready=True) == 5.0


def test_it_asks_only_when_it_could_obey() -> None:
    found = connected()
    assert found.due(0.0, ready=False) == (False, True)
    found.told(desired=0, reported=10, have=0, now_s=0.1)
    found.connected(1.0)
    assert found.due(1.0, ready=False)[0] is False
    assert found.due(9.0, ready=True)[0] is True


def test_a_flood_of_hints_makes_it_ask_seldom() -> None:
    found, asked = connected(), 0
    for at in range(100_000):
        now_s = at / 1_000
        found.told(desired=99, reported=10, have=0, now_s=now_s)
        asked += found.due(now_s, ready=True)[0]
    assert asked <= 100 / ASK_S_MIN + 1


def test_what_passes_presently_is_not_said_and_the_end_is_said_at_once() -> None:
    found = connected()
    found.due(0.0, ready=True)
    found.changed(11, 1.0, soon=True)
    assert found.due(1.0 + SOON_S / 2, ready=True) == (False, False)
    found.changed(12, 1.6, soon=False)
    assert found.due(1.6, ready=True) == (False, True)
    found.told(desired=0, reported=12, have=0, now_s=1.7)
    found.changed(13, 2.0, soon=True)
    assert found.due(2.0 + SOON_S, ready=True) == (False, True)
