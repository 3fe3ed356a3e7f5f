"""``fieldfleet watch`` and ``fieldfleet webhooks`` show what the API says, and come back when it was away."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fleet_server.cli.feed import FeedEvent, events, follow
from fleet_server.cli.server import CommandError, Exit
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.retries import Attempt, Decision, State
from fleet_server.outbound.store import Settled
from tests.fleet_server.cli.test_fieldfleet import document, run, table
from tests.fleet_server.fleet import NOW, Fleet
from tests.servers import wait_until

URL: Final = "https://hooks.example.org/x"


@pytest.fixture
def fleet(served: tuple[Fleet, Path], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("FIELDFLEET_SITE", str(served[1]))
    return served[0]


def happen(fleet: Fleet, *kinds: Kind) -> list[int]:
    news = [News(NOW, kind, "cam-1", "body_camera", "hq/st-1") for kind in kinds]
    ids = [each.id for each in fleet.outbox.record(news, {}, {}, now_ms=NOW).happenings]
    fleet.bell.ring()
    return ids


def test_watch_shows_a_line_for_each(fleet: Fleet) -> None:
    (first, _) = happen(fleet, Kind.DEVICE_DISCONNECTED, Kind.GAP_LOST)
    result = run("watch", "--after", str(first - 1), "--count", "2", "--kinds", "device.disconnected,gap.lost")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        "2026-01-01 08:10:00Z  warning  device.disconnected  hq/st-1  cam-1 is not connected any more"
    )


def test_watch_as_json_is_a_document_a_line(fleet: Fleet) -> None:
    ids = happen(fleet, Kind.GAP_LOST, Kind.DEVICE_CONNECTED)
    result = run("watch", "--after", str(ids[0] - 1), "--count", "2", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids


def test_watch_waits_for_what_comes(fleet: Fleet) -> None:
    done = threading.Event()

    def again_and_again() -> None:  # who listens may still be the one of another claim
        while not done.wait(0.1):
            happen(fleet, Kind.BROKER_LOST)

    thread = threading.Thread(target=again_and_again)
    thread.start()
    result = run("watch", "--count", "1")
    done.set()
    thread.join()
    assert "the server has lost the broker" in result.stdout


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("arguments", [("--kinds", "device.exploded"), ("--severity", "mild"), ("--device", "Car 7")])
def test_what_cannot_be_watched_is_told(arguments: tuple[str, str]) -> None:
    result = run("watch", *arguments)
    assert result.exit_code == Exit.PROBLEM
    assert f"got '{arguments[1]}'" in result.stderr


def test_webhooks_are_made_listed_and_removed(fleet: Fleet) -> None:
    made = document("webhooks", "add", URL, "--severity", "warning", "--kinds", "gap.lost", "--note", "duty chat")
    assert made["secret"].startswith("whsec_")
    head, *rows = table("webhooks", "list")
    assert head[:2] == ["id", "url"]
    assert [made["id"], URL, "gap.lost", "warning", "yes", "duty", "chat"] in rows
    assert made["secret"] not in run("webhooks", "list", "--json").stdout
    assert run("webhooks", "remove", made["id"]).stdout == f"{made['id']} is removed\n"
    again = run("webhooks", "remove", made["id"])
    assert again.exit_code == Exit.PROBLEM
    assert "there is no webhook" in again.stderr


@pytest.mark.usefixtures("fleet")
def test_a_webhook_that_cannot_be_is_told() -> None:
    result = run("webhooks", "add", "http://hooks.example.org/")
    assert result.exit_code == Exit.PROBLEM
    assert "plain http goes to a loopback address alone" in result.stderr


@pytest.mark.parametrize(
    ("attempt", "decision", "code", "said"),
    [
        (Attempt(204), Decision(State.DELIVERED), Exit.OK, "took the test: 204"),
        (Attempt(500, "no"), Decision(State.PENDING, NOW), Exit.PROBLEM, "did not take the test: 500 no"),
        (
            Attempt(0, "ConnectError"),
            Decision(State.PENDING, NOW),
            Exit.PROBLEM,
            "did not take the test: 0 ConnectError",
        ),
    ],
)
def test_a_test_says_what_the_receiver_said(
    fleet: Fleet, attempt: Attempt, decision: Decision, code: Exit, said: str
) -> None:
    id_ = document("webhooks", "add", URL)["id"]

    def deliver() -> None:
        wait_until(lambda: bool(fleet.outbox.due(id_, 2**60, rows_max=1, sweep=False)[0]), "it is due")
        (due,), _ = fleet.outbox.due(id_, 2**60, rows_max=1, sweep=False)
        fleet.outbox.settle(id_, [Settled(due.happening.id, attempt, decision)], now_ms=NOW, hurry=False)

    thread = threading.Thread(target=deliver)
    thread.start()
    result = run("webhooks", "test", id_)
    thread.join()
    assert result.exit_code == code
    assert said in result.output
    run("webhooks", "remove", id_)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id: 1\nevent: a\ndata: {}\n\n", [("1", "a", "{}")]),
        ("data: x\ndata: y\n\n", [("", "message", "x\ny")]),
        (": hello\n\nretry: 5\n\nid: 7\ndata:x\n\n", [("7", "message", "x")]),
        ("id: 1\ndata: a\n\ndata: b\n\n", [("1", "message", "a"), ("1", "message", "b")]),
        ("id: 1\nevent: a\ndata: cut off", []),
        ("event: a\n\nid: 2\ndata: b\n\n", [("2", "message", "b")]),
    ],
)
def test_events_are_read_from_lines(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert list(events(text.split("\n"))) == [FeedEvent(*each) for each in expected]


def test_after_a_loss_the_feed_goes_on_behind_what_was_seen_and_the_loss_is_told_once() -> None:
    asked: list[str | None] = []
    waits: list[float] = []
    losses: list[str] = []

    def connect(seen: str | None) -> Iterator[str]:
        asked.append(seen)
        match len(asked):
            case 1:
                yield from ["id: 1", "data: a", "", "id: 2", "data: cut"]
            case 2 | 3:
                raise CommandError(Exit.UNREACHABLE, "cannot reach it\n  a hint")
            case _:
                yield from ["id: 2", "data: b", ""]

    feed = follow(connect, waits.append, losses.append)
    assert [next(feed).data, next(feed).data] == ["a", "b"]
    assert (asked, len(waits), losses) == ([None, "1", "1", "1"], 3, ["cannot reach it"])


@pytest.mark.parametrize("code", [Exit.UNREACHABLE, Exit.PROBLEM])
def test_a_server_that_was_never_there_is_an_error(code: Exit) -> None:
    def connect(_seen: str | None) -> Iterator[str]:
        raise CommandError(code, "no")

    with pytest.raises(CommandError, match="no"):
        next(follow(connect, lambda _: None, lambda _: None))
