"""Times as operators write them."""

import pytest

from fleet_server.cli import moments


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("now", 10_000_000),
        ("-90s", 9_910_000),
        ("-1h", 6_400_000),
        ("1767225600000", 1_767_225_600_000),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T08:00:00.250+08:00", 1_767_225_600_250),
        ("2026-01-01T00:00:00", None),  # of which clock?
        ("-7", None),
        ("", None),
    ],
)
def test_times_of_the_command(text: str, at_ms: int | None) -> None:
    if at_ms is not None:
        assert moments.parse(text, now_ms=10_000_000) == at_ms
        return
    with pytest.raises(ValueError, match="expected a time such as"):
        moments.parse(text, now_ms=10_000_000)
