"""The server's own measures: rates between two looks, and what is not known is not told."""

from dataclasses import replace

import pytest

from fleet_server.standing import server
from fleet_server.standing.measures import SERVER
from fleet_server.standing.server import Seen
from fleet_server.telemetry.view import IngestFacts

AT = 1_767_254_400_000
FACTS = IngestFacts(1, True, 1_000, 10, 0, 0, 0, 100, 0, 32, 7, commits_ms=900.0, receipt_age_ms=250, queue_records=4)


def values(now: Seen, before: Seen | None) -> dict[str, float | None]:
    return dict(zip(SERVER.names, server.sample(now, before).values, strict=True))


def test_rates_are_between_two_looks() -> None:
    before = Seen(AT, FACTS, 64)
    facts = replace(FACTS, records_stored=4_000, records_duplicate=13, commits=120, commits_ms=1_000.0)
    found = values(Seen(AT + 30_000, facts, 64, disk_free_bytes=9, ca_end_ms=AT + 90_000), before)
    assert (found["ingest"], found["duplicates"], found["commit_ms"]) == (100.0, 0.1, 5.0)
    assert (found["receipt_age_ms"], found["queue_records"]) == (250.0, 4.0)
    assert (found["quarantine_bytes"], found["quarantine_share"]) == (32.0, 0.5)
    assert (found["ca_s"], found["disk_free_bytes"]) == (60.0, 9.0)


def test_releases_end_when_the_first_of_what_was_signed_does() -> None:
    found = values(Seen(AT, FACTS, 64, releases_end_ms=(AT + 5_000, None)), None)
    assert (found["releases_s"], found["releases_fresh_s"]) == (5.0, None)
    found = values(Seen(AT, FACTS, 64, releases_end_ms=(AT + 5_000, AT - 1_000)), None)
    assert found["releases_fresh_s"] == -1.0


def test_what_is_not_known_is_not_told() -> None:
    found = values(Seen(AT, FACTS, 0), None)
    unknown = {name for name, value in found.items() if value is None}
    assert unknown == {
        "ingest", "duplicates", "commit_ms", "quarantine_share", "sink_behind_s", "series", "series_share", "ca_s",
        "disk_free_bytes", "releases_s", "releases_fresh_s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("took", "more_commits", "more_failures", "takes"),
    [
        (True, 0, 0, True),
        (True, 0, 1, False),
        (True, 1, 1, True),  # it took what it had refused, or what came before
        (False, 0, 0, False),  # nothing was tried since it refused: between two tries it takes nothing either
        (False, 0, 1, False),
        (False, 1, 0, True),
    ],
)
def test_a_store_that_refuses_takes_nothing_until_it_takes_something(
    took: bool, more_commits: int, more_failures: int, takes: bool
) -> None:
    now = replace(FACTS, commits=FACTS.commits + more_commits, commit_failures=FACTS.commit_failures + more_failures)
    assert server.takes(now, Seen(AT, FACTS, 64, takes=took)) == takes
    assert server.takes(now, None)
    assert values(Seen(AT, FACTS, 64, takes=takes), None)["store_takes"] == float(takes)


def test_without_a_commit_there_is_no_time_of_one() -> None:
    assert values(Seen(AT + 1, FACTS, 64), Seen(AT, FACTS, 64))["commit_ms"] is None
