"""Measuring units: as SenML (RFC 8428) names them in the device classes, and as Grafana shows them."""

from collections.abc import Mapping
from typing import Final

COUNT: Final = "none"
SHARE: Final = "percentunit"
"""0 to 1, shown as per cent."""

SPAN: Final = "dthms"
"""Seconds, as hours, minutes and seconds: Grafana's own words for time are English in every language."""
MOMENT: Final = "dateTimeAsIso"
"""In the dashboard's time zone."""
SECONDS_A_DAY: Final = 86_400

_GRAFANA: Final[Mapping[str, str]] = {
    "%": "percent",
    "%RH": "humidity",
    "/": "bool_yes_no",  # SenML's ratio; in device classes always a 0 or a 1
    "1": "none",
    "1/h": "suffix: /h",
    "1/min": "suffix: /min",
    "1/s": "suffix: /s",
    "B": "bytes",
    "B/s": "binBps",
    "Cel": "celsius",
    "V": "volt",
    "count": COUNT,
    "dB": "dB",
    "dBm": "dBm",
    "km": "lengthkm",
    "lat": "degree",
    "lon": "degree",
    "m": "lengthm",
    "m/s": "velocityms",
    "ms": "ms",
    "s": "suffix: s",  # Grafana's own goes over to minutes, in English
}


class UnknownUnitError(Exception):
    """A device class measures in a unit that nobody has told us how to show."""


def grafana_unit(senml: str) -> str:
    """Grafana's id of a unit.

    Raises:
        UnknownUnitError: there is none; it belongs into the table above.
    """
    try:
        return _GRAFANA[senml]
    except KeyError as error:
        raise UnknownUnitError(f"unit: expected one of {', '.join(_GRAFANA)}, got {senml!r}") from error


def grafana_units() -> frozenset[str]:
    """Every id that a field of a device class can have."""
    return frozenset(_GRAFANA.values())


def decimals(senml: str) -> int | None:
    """Digits after the point where Grafana's own choice hides what matters: five of a degree are about a metre."""
    return 5 if senml in {"lat", "lon"} else None


def suffix(word: str) -> str:
    """Grafana's id of a unit that it does not know: a number, and *word* after it."""
    return f"suffix: {word}"
