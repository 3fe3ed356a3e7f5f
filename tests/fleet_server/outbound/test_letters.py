"""What is mailed reads well, and nothing from outside becomes a header."""

import email
import email.policy
from typing import Final

import pytest

from fleet_server.outbound.happenings import SEVERITY, Data, Happening, Kind, News, text
from fleet_server.outbound.letters import letter, subject

T0: Final = 1_767_254_400_000
SITE: Final = "5e" * 32
HOSTILE: Final = "x\r\nBcc: thief@example.org\r\n\r\n<script>\x00\ud800"
DATA: Final[Data] = {
    "count": 3,
    "devices": 40,
    "percent": 81,
    "names": ("cam-1",),
    "webhook": "w1234",
    "name": "camera-settings",
    "why": "because",
    "text_en": "cam-1 is wrong",
}


def happening(id_: int, kind: Kind, **named: str) -> Happening:
    news = News(
        T0 + 1_000 * id_, kind, named.get("device", "cam-1"), "body_camera", named.get("org", "hq/st-1"), DATA
    )
    return Happening(id_, news)


def test_one_happening_is_told_whole_in_the_subject() -> None:
    assert subject([happening(1, Kind.DEVICE_DISCONNECTED)]) == "[fieldfleet warning] cam-1 is not connected any more"


def test_many_are_counted_the_worst_first() -> None:
    found = [happening(n, Kind.DEVICE_CONNECTED) for n in range(5)] + [happening(6, Kind.BROKER_LOST)]
    assert subject(found) == "[fieldfleet alarm] 1 broker.lost, 5 device.connected"
    many = [happening(n, kind) for n, kind in enumerate(Kind)]
    assert subject(many).endswith(f" and {len(Kind) - 3} kinds more")


def test_the_body_is_a_table_that_people_can_read() -> None:
    found = [happening(1, Kind.SITE_DISCONNECTED), happening(2, Kind.DEVICE_CONNECTED, org="")]
    sent = email.message_from_bytes(_bytes(found), policy=email.policy.default)
    assert isinstance(sent, email.message.EmailMessage)
    assert sent.get_content().splitlines() == [
        "2 happenings, times in UTC:",
        "",
        "2026-01-01 08:00:01  alarm  hq/st-1  hq/st-1: 3 of 40 devices are not connected any more",
        "2026-01-01 08:00:02  info   -        cam-1 is connected",
    ]
    assert (sent["importance"], sent["auto-submitted"]) == ("high", "auto-generated")


def test_the_same_happenings_make_the_same_letter() -> None:
    found = [happening(7, Kind.GAP_LOST), happening(9, Kind.GAP_LOST)]
    first, second = (email.message_from_bytes(_bytes(found), policy=email.policy.default) for _ in range(2))
    assert first["message-id"] == second["message-id"] == f"<hap.7.9.{T0 + 9_000}@5e5e5e5e5e5e5e5e.fieldfleet>"
    assert first["date"] == second["date"]


@pytest.mark.parametrize("kind", list(Kind))
def test_no_text_of_a_happening_becomes_a_header(kind: Kind) -> None:
    hostile: Data = dict.fromkeys(("count", "devices", "why", "webhook", "percent"), HOSTILE) | {
        "streams": (HOSTILE, HOSTILE)
    }
    told = Happening(1, News(T0, kind, HOSTILE, HOSTILE, HOSTILE, hostile))
    sent = email.message_from_bytes(_bytes([told]), policy=email.policy.default)
    assert "thief@example.org" not in str(sent["to"])
    assert sent["bcc"] is None
    assert "\n" not in sent["subject"]
    assert not sent.is_multipart()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_severity_and_a_line(kind: Kind) -> None:
    assert kind in SEVERITY
    line = text(News(T0, kind, "cam-1", "body_camera", "hq", DATA))
    assert line
    assert "\n" not in line
    assert "None" not in line


def _bytes(found: list[Happening]) -> bytes:
    return letter(found, site=SITE, sender="fleet@example.org", recipients=["duty@example.org"]).as_bytes()
