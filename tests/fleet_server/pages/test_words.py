"""States have one word each."""

from fleet_server.outbound import happenings
from fleet_server.outbound.happenings import Kind, News
from fleet_server.pages import words


def test_what_is_over_is_said_once() -> None:
    news = News(0, Kind.ALERT_CLEARED, data={"alert": "broker-lost", "severity": "alarm", "text_en": "broker lost"})
    assert words.happened(news) == words.OVER
    assert happenings.text(news) == "over: broker lost", "where there is no word beside it"
    assert happenings.text(words.subject(news)) == "broker lost"
    assert words.subject(News(0, Kind.DEVICE_SILENT, "car-7")).kind is Kind.DEVICE_SILENT
