"""How long records wait for their receipts is the worst of the last half minute."""

from fleet_server.telemetry.ages import WINDOW_MS, Ages

AT = 1_767_254_400_000


def test_the_oldest_of_the_window_counts() -> None:
    ages = Ages()
    assert ages.oldest_ms(AT) is None
    for at_ms, age_ms in ((AT, 40), (AT + 10, 900), (AT + 20, 30), (AT + 5_000, 50)):
        ages.note(at_ms, age_ms)
    assert ages.oldest_ms(AT + 5_000) == 900
    assert ages.oldest_ms(AT + WINDOW_MS) == 50
    assert ages.oldest_ms(AT + 5_000 + WINDOW_MS) is None


def test_a_second_of_many_receipts_is_one_value() -> None:
    ages = Ages()
    for n in range(100_000):
        ages.note(AT + n, n % 7)
    assert ages.oldest_ms(AT + 100_000) == 6
