"""The machine of alerts: what opens is told once and clears once, and an outage of a site is one alert."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.alerting import keeping
from fleet_server.alerting.machine import FORGET_MS, Key, Look, Machine, State
from fleet_server.alerting.rules import RULE, RULES, Kin
from fleet_server.alerting.showing import news_of, shown
from fleet_server.outbound.happenings import Kind
from fleet_server.standing.measures import PRESENCE, SERVER
from fleet_server.standing.sample import Sample
from fleet_server.texts import Language, Texts
from tests.fleet_server.alerting.samples import sample

T0 = 1_767_225_600_000
STATION = "hq/station-7"
EMPTY = Look({}, (), (), frozenset())


def presence(
    device: str, at_ms: int, *, connected: float | None, kind: str = "traffic_light", org: str = STATION
) -> Sample:
    return sample(
        PRESENCE, at_ms, device=device, device_class=kind, org=org, connected=connected, reporting=connected
    )


class Run:
    """Looks one after the other; ``told``: what was opened and cleared, in turn."""

    def __init__(self) -> None:
        self.machine = Machine(RULES)
        self.states: dict[Key, State] = {}
        self.told: list[tuple[Kind, Key]] = []
        self.last = EMPTY

    def look(self, at_s: float, samples: list[Sample]) -> Look:
        look = self.last = self.machine.look(samples, self.states, T0 + int(1_000 * at_s))
        self.states = look.states
        self.told += [(Kind.ALERT_OPENED, key) for key in look.opened]
        self.told += [(Kind.ALERT_CLEARED, key) for key, _ in look.cleared]
        return look

    def fleet(self, at_s: float, connected: dict[str, bool], org: str = STATION) -> Look:
        at_ms = T0 + int(1_000 * at_s)
        return self.look(
            at_s, [presence(name, at_ms, connected=float(is_), org=org) for name, is_ in connected.items()]
        )

    @property
    def open(self) -> list[str]:
        return [f"{alert.rule} {alert.subject}" for alert in shown(RULE, self.last)]


def site(count: int, away: int) -> dict[str, bool]:
    """*count* signals, of which the first *away* are."""
    return {f"light-{at}": at >= away for at in range(count)}


def test_a_site_that_goes_is_one_alert_and_not_forty() -> None:
    run = Run()
    run.fleet(0, site(40, 0))
    for at_s in range(5, 600, 5):
        run.fleet(at_s, site(40, 40))
    assert run.told == [(Kind.ALERT_OPENED, Key("site-outage", STATION))]
    (alert,) = shown(RULE, run.last)
    assert alert.words(Texts(Language.EN)) == "hq/station-7: 40 of 40 devices are not connected"
    assert alert.words(Texts(Language.ZH_HANS)) == "hq/station-7：40 台设备中有 40 台未连接"
    assert set(alert.grouped) == set(site(40, 40))
    for at_s in range(600, 700, 5):
        run.fleet(at_s, site(40, 0))
    assert run.told[1:] == [(Kind.ALERT_CLEARED, Key("site-outage", STATION))]
    assert not run.states


def test_who_stays_away_behind_an_outage_is_told_once_it_had_its_time_to_come_back() -> None:
    run = Run()
    for at_s in range(0, 600, 5):
        run.fleet(at_s, site(10, 10))
    for at_s in range(600, 960, 5):
        run.fleet(at_s, site(10, 1))
        assert not [alert for alert in run.open if alert.startswith("device")]
    run.fleet(960, site(10, 1))
    (alert,) = shown(RULE, run.last)
    assert alert.since_ms == T0
    assert run.open == ["device-dead light-0"]
    assert Counter(run.told) == Counter(
        [
            (Kind.ALERT_OPENED, Key("site-outage", STATION)),
            (Kind.ALERT_CLEARED, Key("site-outage", STATION)),
            (Kind.ALERT_OPENED, Key("device-dead", "light-0")),
        ]
    )


def test_a_device_that_was_told_before_the_outage_is_not_told_anew_behind_it() -> None:
    run = Run()
    for at_s in range(0, 400, 5):
        run.fleet(at_s, site(10, 1))
    for at_s in range(400, 900, 5):
        run.fleet(at_s, site(10, 10))
        assert len(run.open) == 1
    assert run.open == [f"site-outage {STATION}"]
    for at_s in range(900, 1_000, 5):
        run.fleet(at_s, site(10, 1))
    assert run.open == ["device-dead light-0"]
    opened = [key for kind, key in run.told if kind is Kind.ALERT_OPENED]
    assert len(opened) == len(set(opened))


def test_two_devices_of_many_are_two_alerts() -> None:
    run = Run()
    for at_s in range(0, 400, 5):
        run.fleet(at_s, site(10, 2))
    assert run.open == ["device-dead light-0", "device-dead light-1"]


def test_cameras_that_are_put_away_for_the_night_are_no_outage() -> None:
    run = Run()
    for at_s in range(0, 4_000, 100):
        at_ms = T0 + 1_000 * at_s
        run.look(at_s, [presence(f"cam-{at}", at_ms, connected=0.0, kind="body_camera") for at in range(40)])
    assert run.open == []


def test_a_device_that_is_nowhere_any_more_has_no_alert_after_a_day() -> None:
    run = Run()
    for at_s in range(0, 400, 5):
        run.fleet(at_s, site(3, 1))
    assert run.open == ["device-dead light-0"]
    rest = {name: is_ for name, is_ in site(3, 1).items() if name != "light-0"}
    run.fleet(395 + FORGET_MS / 1_000 - 1, rest)
    assert run.open == ["device-dead light-0"]
    run.fleet(395 + FORGET_MS / 1_000, rest)
    assert run.told[-1] == (Kind.ALERT_CLEARED, Key("device-dead", "light-0"))


def test_what_is_told_names_rule_severity_value_unit_runbook_and_words() -> None:
    run = Run()
    look = run.look(0, [sample(SERVER, T0, quarantine_share=0.9)])
    (news,) = news_of(RULE, look, T0)
    assert (news.kind, news.org, news.device) == (Kind.ALERT_OPENED, "", "")
    assert news.severity == "alarm"
    assert news.data["alert"] == "quarantine-filling"
    assert (news.data["value"], news.data["unit"]) == ("0.9", "/")
    assert news.data["runbook"] == "docs/runbooks/quarantine-filling.md"
    assert news.data["text_en"] == "quarantine is 90 % full; once it is, poison gets no receipts"
    assert news.data["text_zh_hans"] == "隔离区已用 90 %；写满后异常数据将得不到确认"


def test_no_more_alerts_begin_than_are_bounded() -> None:
    machine = Machine(RULES, states_max=3)
    samples = [presence(f"light-{at}", T0, connected=0.0, org=f"hq/s-{at}") for at in range(5)]
    look = machine.look(samples, {}, T0)
    assert (len(look.states), look.left_out) == (3, 2)


VALUES = st.sampled_from([None, 0.0, 1.0])
FLEETS = st.lists(
    st.dictionaries(st.sampled_from([f"light-{at}" for at in range(5)]), VALUES), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(FLEETS, st.data())
def test_opened_and_cleared_take_turns_whatever_comes_in_whatever_order_and_over_restarts(
    fleets: list[dict[str, float | None]], data: st.DataObject
) -> None:
    run, rows = Run(), dict[tuple[str, str], str]()
    recorded: dict[Key, State] = {}
    recorded_ms = T0
    open_now: set[Key] = set()
    for step, fleet in enumerate(fleets):
        at_s = 60 * step
        at_ms = T0 + 1_000 * at_s
        samples = [presence(name, at_ms, connected=value) for name, value in fleet.items()]
        shuffled = data.draw(st.permutations(samples))
        other = Machine(RULES).look(samples, run.states, at_ms)
        look = run.look(at_s, shuffled)
        assert look.states == other.states
        assert (look.opened, look.cleared, look.folded) == (other.opened, other.cleared, other.folded)
        for key in look.opened:
            assert key not in open_now
            open_now.add(key)
        for key, _ in look.cleared:
            open_now.remove(key)
        assert {key for key, state in look.states.items() if state.told} == open_now
        if any(RULE[key.rule].kin is Kin.OUTAGE and look.states[key].open for key in look.states):
            assert all(RULE[alert.rule].kin is not Kin.AWAY for alert in shown(RULE, look))
        for row, value in keeping.changes(recorded, recorded_ms, look.states, at_ms).items():
            if value is None:
                rows.pop(row, None)
            else:
                rows[row] = value
        recorded, recorded_ms = look.states, at_ms
        if data.draw(st.booleans()):
            kept = keeping.read([(*row, value) for row, value in rows.items()], RULE, at_ms)
            assert {key for key, state in kept.items() if state.told} == open_now
            run.states = recorded = kept


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.61, 0.99), min_size=2, max_size=60))
def test_what_hovers_around_a_threshold_opens_at_most_once(shares: list[float]) -> None:
    run = Run()
    for at, share in enumerate(shares):
        run.look(30 * at, [sample(SERVER, T0 + 30_000 * at, quarantine_share=share)])
    assert len(run.told) == any(share > RULE["quarantine-filling"].fires for share in shares)
