"""Each rule: a series in, an alert and its words out; and it clears again."""

import pytest

from broker_config import device_classes
from fleet_server.alerting.machine import Key, Look, Machine, State
from fleet_server.alerting.rules import FIXED, RULE, RULES, Kin, Rule, Way
from fleet_server.alerting.showing import shown
from fleet_server.texts import Language, Texts
from tests.fleet_server.alerting.samples import ORG, of_rule

EN, ZH = Texts(Language.EN), Texts(Language.ZH_HANS)
T0 = 1_767_225_600_000
SINGLE = [rule for rule in RULES if rule.kin is not Kin.OUTAGE]

WORDS = {
    # rule: a value that is wrong, and what is said of it
    "device-dead": (0, "a-1 (hq/station-7) is not connected", "a-1（hq/station-7）未连接"),
    "device-away": (0, "a-1 (hq/station-7) has not been connected for three days", "a-1（hq/station-7）已三天未连接"),
    "device-silent": (
        0,
        "a-1 (hq/station-7) is connected and does not report",
        "a-1（hq/station-7）已连接但不上报数据",
    ),
    "device-unhealthy": (
        0,
        "a-1 (hq/station-7): its journal tells of a fault that lasts",
        "a-1（hq/station-7）：设备日志报告持续故障",
    ),
    "gap-unexplained": (
        2,
        "a-1 (hq/station-7): 2 gaps of the last day have no reason",
        "a-1（hq/station-7）：最近一天有 2 个数据缺口原因不明",
    ),
    "gap-lost": (
        1,
        "a-1 (hq/station-7): 1 gaps of what was receipted",
        "a-1（hq/station-7）：已确认的数据中有 1 个缺口",
    ),
    "interview-gap": (
        1,
        "a-1 (hq/station-7): 1 gaps without a reason in interviews of the last day",
        "a-1（hq/station-7）：最近一天的询问录制中有 1 个原因不明的缺口",
    ),
    "recording-gap": (
        1_500,
        "a-1 (hq/station-7): 1500 ms are missing in the running recording",
        "a-1（hq/station-7）：正在进行的录制缺失 1500 ms",
    ),
    "signal-conflict": (
        0,
        "a-1 (hq/station-7): the conflict monitor sees a conflict",
        "a-1（hq/station-7）：冲突监测器检测到信号冲突",
    ),
    "signal-flash": (
        1,
        "a-1 (hq/station-7): the signals flash or are off (mode 1)",
        "a-1（hq/station-7）：信号灯黄闪或熄灭（模式 1）",
    ),
    "lamp-failed": (
        2,
        "a-1 (hq/station-7): 2 lamps do not draw their current",
        "a-1（hq/station-7）：2 个灯具电流异常",
    ),
    "space-short": (
        -1_800,
        "a-1 (hq/station-7) will be full 30 min before the shift ends",
        "a-1（hq/station-7）的存储将在班次结束前 30 分钟 写满",
    ),
    "battery-short": (
        -7_200,
        "a-1 (hq/station-7): the battery will be empty 2 h before the shift ends",
        "a-1（hq/station-7）：电池将在班次结束前 2 小时 耗尽",
    ),
    "upload-overdue": (
        3,
        "a-1 (hq/station-7): 3 recordings are not here a day later",
        "a-1（hq/station-7）：3 段录像超过一天仍未上传",
    ),
    "device-certificate": (
        345_600,
        "a-1 (hq/station-7): its certificate ends in 4 d",
        "a-1（hq/station-7）：证书将在 4 天 后到期",
    ),
    "authority-ends": (
        8_640_000,
        "the authority that signs devices ends in 100 d",
        "签发设备证书的机构将在 100 天 后到期",
    ),
    "releases-end": (
        864_000,
        "what persons signed of releases ends in 10 d",
        "由人员签名的发布内容将在 10 天 后到期",
    ),
    "releases-stale": (
        86_400,
        "devices refuse every release in 24 h",
        "设备将在 24 小时 后拒绝任何发布",
    ),
    "clock-off": (
        -61_000,
        "a-1 (hq/station-7): its clock is off by 61 s",
        "a-1（hq/station-7）：时钟偏差 61 秒",
    ),
    "not-in-effect": (
        0,
        "a-1 (hq/station-7) has not had its desired configuration in effect for an hour",
        "a-1（hq/station-7）的期望配置超过一小时未生效",
    ),
    "rollout-paused": (1, "1 rollouts are paused", "1 个分批下发已暂停"),
    "store-refusing": (
        0,
        "the batch store takes nothing; devices hold what they have",
        "数据存储无法写入；设备将保留未上传的数据",
    ),
    "receipts-late": (12_000, "records wait 12 s for their receipt", "数据等待确认已达 12 秒"),
    "broker-lost": (
        0,
        "the server is not connected to the broker; devices hold what they have",
        "服务器未连接消息代理；设备将保留未上传的数据",
    ),
    "quarantine-filling": (
        0.9,
        "quarantine is 90 % full; once it is, poison gets no receipts",
        "隔离区已用 90 %；写满后异常数据将得不到确认",
    ),
    "series-budget": (
        0.95,
        "95 % of the budget of series is used; beyond it new series are left out",
        "时间序列配额已用 95 %；超出后新序列将不再写入",
    ),
    "sink-behind": (
        400,
        "points have been waiting 7 min for the time-series server; dashboards are old",
        "数据点等待写入时序服务器已达 7 分钟；仪表板数据已过时",
    ),
    "disk-short": (1024**3, "1 GiB are left where the batch store is", "数据存储所在磁盘剩余 1 GiB"),
    "evidence-space": (
        259_200,
        "the evidence store is full in 3 d, as the last week went",
        "按最近一周的用量，证据存储将在 3 天 后写满",
    ),
    "evidence-damaged": (
        2,
        "the last scrub found 2 pieces that are not as they should be",
        "最近一次校验发现 2 件证据与原件不符",
    ),
    "scrub-old": (180_000, "evidence was last read again 2 d ago", "上一次证据校验在 2 天 前"),
    "custody-log": (
        0,
        "the custody log is not what was signed; every change is refused",
        "保管日志与签名不符；所有更改均被拒绝",
    ),
    "second-copy": (5, "5 pieces of evidence have no second copy yet", "5 件证据尚无第二副本"),
}


def looked(rule: Rule, series: list[tuple[int, float | None]], states: dict[Key, State] | None = None) -> Look:
    """The last look of those at *series*: seconds and values."""
    machine = Machine(RULES)
    look = Look(states or {}, (), (), frozenset())
    for at_s, value in series:
        at_ms = T0 + 1_000 * at_s
        look = machine.look([of_rule(rule, value, at_ms)], look.states, at_ms)
    return look


def good(rule: Rule) -> float:
    """A value at which it clears."""
    return rule.clears


def test_every_rule_has_a_series() -> None:
    assert set(WORDS) == {rule.name for rule in SINGLE}


@pytest.mark.parametrize("rule", SINGLE, ids=lambda rule: rule.name)
def test_a_rule_fires_says_what_is_wrong_and_clears(rule: Rule) -> None:
    value, english, chinese = WORDS[rule.name]
    fires_s = rule.fires_s
    if fires_s:
        early = looked(rule, [(0, value), (fires_s - 1, value)])
        assert not [key for key in early.opened if key.rule == rule.name]
    found = looked(rule, [(0, value), (fires_s, value)] if fires_s else [(0, value)])
    key = next(key for key in found.opened if key.rule == rule.name)
    (alert,) = (each for each in shown(RULE, found) if each.rule == rule.name)
    assert (alert.words(EN), alert.words(ZH)) == (english, chinese)
    assert (alert.severity, alert.since_ms) == (rule.severity, T0)
    assert alert.org == (ORG if key.subject else "")
    over = looked(rule, [(fires_s + 10, good(rule)), (fires_s + 10 + rule.clears_s, good(rule))], found.states)
    assert key in {cleared for cleared, _ in looked_cleared(rule, found, fires_s)}
    assert key not in over.states


def looked_cleared(rule: Rule, found: Look, from_s: int) -> list[tuple[Key, State]]:
    """What clears while it is well for as long as the rule asks for."""
    first = looked(rule, [(from_s + 10, good(rule))], found.states)
    second = looked(rule, [(from_s + 10 + rule.clears_s, good(rule))], first.states)
    return [*first.cleared, *second.cleared]


@pytest.mark.parametrize("rule", SINGLE, ids=lambda rule: rule.name)
def test_silence_neither_opens_nor_clears(rule: Rule) -> None:
    value = WORDS[rule.name][0]
    assert not looked(rule, [(0, None), (rule.fires_s + 1, None)]).states
    found = looked(rule, [(0, value), (rule.fires_s, value)])
    silent = looked(rule, [(rule.fires_s + at_s, None) for at_s in (0, rule.clears_s, 10**7)], found.states)
    assert {key for key in silent.states if key.rule == rule.name} == {
        key for key in found.states if key.rule == rule.name
    }


@pytest.mark.parametrize("rule", SINGLE, ids=lambda rule: rule.name)
def test_a_rule_does_not_clear_before_it_is_well_for_long_enough(rule: Rule) -> None:
    value = WORDS[rule.name][0]
    found = looked(rule, [(0, value), (rule.fires_s, value)])
    if rule.clears_s:
        short = looked(rule, [(rule.fires_s + at, good(rule)) for at in (1, rule.clears_s)], found.states)
        assert {key.rule for key in short.states} >= {rule.name}
    between = (rule.fires + rule.clears) / 2
    if rule.fires != rule.clears:
        hovering = looked(rule, [(rule.fires_s + at, between) for at in (1, rule.clears_s + 2)], found.states)
        assert {key.rule for key in hovering.states} >= {rule.name}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.only], ids=lambda rule: rule.name)
def test_a_rule_clears_where_it_does_not_apply_any_more(rule: Rule) -> None:
    value = WORDS[rule.name][0]
    states = looked(rule, [(0, value), (rule.fires_s, value)]).states
    machine = Machine([rule])
    for at_s in (1, 1 + rule.clears_s):
        at_ms = T0 + 1_000 * (rule.fires_s + at_s)
        states = machine.look([of_rule(rule, value, at_ms, applies=0.0)], states, at_ms).states
    assert not states


def test_rules_are_what_they_say() -> None:
    for rule in RULES:
        assert rule.unit
        assert all(name in device_classes.names() for name in rule.classes), rule.name
        for measure in rule.measures:
            asked = {rule.field, *filter(None, (rule.minus, rule.only))}
            assert asked <= set(measure.names), rule.name
        assert not rule.well(rule.fires + (1 if rule.way is not Way.BELOW else -1)), rule.name
        assert not rule.wrong(rule.clears), rule.name
    assert len(RULE) == len(RULES)


def test_devices_of_a_class_are_watched_for_being_away_once() -> None:
    away = [name for rule in RULES if rule.kin is Kin.AWAY for name in rule.classes]
    assert sorted(away) == sorted(device_classes.names())
    assert set(RULE["site-outage"].classes) == set(FIXED)
