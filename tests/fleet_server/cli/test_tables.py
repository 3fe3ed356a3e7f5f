"""Text of the other side is shown as it is, and numbers as an operator reads them."""

import pytest
from rich.console import Console

from fleet_server.cli import moments, tables
from fleet_server.cli.answers import Device, Event, Gap, Quarantined, Series

NOW = 1_767_254_400_000
EVIL = "[bold]\x1b[2J\n[/bold][link=http://x]y[/link]"


def rendered(table: object) -> str:
    console = Console(width=200, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.parametrize(
    "table",
    [
        tables.devices([Device("car-7", EVIL, "", True, True, False, 0, [EVIL], None, None, [])], now_ms=NOW),
        tables.device(Device("car-7", "", EVIL, True, True, True, 0, [EVIL], None, None, []), [], now_ms=NOW),
        tables.gaps([Gap("car-7", EVIL, "off", None, None, None, None, False, EVIL)]),
        tables.events([Event(NOW, EVIL, {EVIL: EVIL})]),
        tables.quarantine([Quarantined(1, NOW, "car-7", "telemetry", EVIL, "shape", EVIL, "", 1, None)]),
        tables.series(Series("car-7", "cpu", 0, 1, 0, 1, [0], {EVIL: [1.0]}, {})),
    ],
)
def test_markup_and_control_characters_do_nothing(table: object) -> None:
    text = rendered(table)
    assert "\x1b[2J" not in text
    assert "\x1b]8" not in text
    assert r"[bold]\x1b[2J\n[/bold]" in "".join(text.split(" ")).replace("\n", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (3.0, "3"), (1e15, "1000000000000000"), (0.1 + 0.2, "0.3"), (-12.3456789, "-12.3457")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("column", "line"),
    [
        ([], ""),
        ([None, None], ""),
        ([5.0, 5.0], "▁▁"),
        ([0.0, 7.0, None, 3.5], "▁█ ▅"),
    ],
)
def test_spark_lines(column: list[float | None], line: str) -> None:
    assert tables.sparkline(column) == line


@pytest.mark.parametrize("rows", [60, 61, 120, 86_400])
def test_a_spark_line_is_bounded_and_rises_as_its_column_does(rows: int) -> None:
    spark = tables.sparkline([float(row) for row in range(rows)])
    assert len(spark) <= tables.SPARK_CHARS_MAX
    assert sorted(spark) == list(spark)
    assert (spark[0], spark[-1]) == ("▁", "█")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("now", str(NOW)),
        ("-90s", str(NOW - 90_000)),
        ("-15m", str(NOW - 900_000)),
        ("-1h", str(NOW - 3_600_000)),
        ("-7d", str(NOW - 604_800_000)),
        ("2026-01-01T08:00:00Z", "2026-01-01T08:00:00Z"),
        ("-1y", "-1y"),  # the API says what is wrong with it
    ],
)
def test_moments(text: str, sent: str) -> None:
    assert moments.for_api(text, now_ms=NOW) == sent


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (None, "never"),
        (NOW + 5_000, "0 s ago"),  # a clock ahead of ours
        (NOW - 119_999, "119 s ago"),
        (NOW - 120_000, "2 min ago"),
        (NOW - 7_200_000, "2 h ago"),
        (NOW - 10 * 86_400_000, "10 d ago"),
    ],
)
def test_how_long_ago(time_ms: int | None, text: str) -> None:
    assert moments.ago(time_ms, now_ms=NOW) == text


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(None, ""), (NOW, "2026-01-01 08:00:00Z"), (0, "1970-01-01 00:00:00Z"), (2**53, f"{2**53} ms")],
)
def test_times_even_without_a_date(time_ms: int | None, text: str) -> None:
    assert moments.utc(time_ms) == text
