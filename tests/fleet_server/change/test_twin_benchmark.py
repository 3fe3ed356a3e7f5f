"""The benchmark of twins in small: what it measures it can measure."""

import pytest

from tests.benchmarks import twins


def test_a_change_is_published_while_the_api_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "QUIET_S", 0.2)
    found = twins.publish(120)
    assert (found.devices, found.seconds > 0) == (120, True)
    for asked in (found.quiet, found.meanwhile):
        assert all(requests > 0 and 0 < p50_ms <= p99_ms for requests, p50_ms, p99_ms in asked.values())
