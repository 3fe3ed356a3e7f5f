"""Webhooks arrive, signed, at least once, whatever receivers and the server do."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine

from fleet_server.access import ca
from fleet_server.outbound.happenings import Kind, Severity
from fleet_server.outbound.retries import FAILURES_TOLD, GIVE_UP_MS, State
from fleet_server.outbound.subscriptions import Choice
from tests.fleet_server.outbound.receiver import Answer, missing, receiving
from tests.fleet_server.outbound.rig import OTHER_SECRET, SECRET, SITE, delivering

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
K: Final = Kind.DEVICE_DISCONNECTED


async def test_everything_that_is_recorded_arrives_signed_as_a_cloud_event(engine: Engine) -> None:
    async with delivering(engine) as rig, receiving(SECRET) as receiver:
        rig.subscribe(receiver)
        recorded = await rig.happen(*([K] * 30))
        await rig.until(lambda: rig.delivered() == 30, "delivered")
    assert (receiver.faults, missing(recorded, receiver)) == ([], set())
    got = receiver.asked[0]
    assert (got.type, got.subject, got.source) == (
        "io.fieldfleet.device.disconnected",
        "cam-0",
        f"urn:fieldfleet:site:{SITE[:16]}",
    )
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert (got.data["device"], got.data["org"], got.data["severity"]) == ("cam-0", "hq/st-1", "warning")
    # four at once may overtake each other by a little, and their sequences sort them
    order = [int(each.data["id"]) for each in receiver.asked]
    assert all(abs(order.index(id_) - at) < 4 for at, id_ in enumerate(sorted(order)))
    assert sorted(order) == [int(each.sequence) for each in sorted(receiver.asked, key=lambda each: each.sequence)]


async def test_a_receiver_that_loses_one_is_seen_by_the_comparison(engine: Engine) -> None:
    """The negative control of the claim above: it answers well for one and does not keep it."""

    def careless(number: int, _data: object) -> Answer:
        return Answer(keeps=number != 7)

    async with delivering(engine) as rig, receiving(SECRET, careless) as receiver:
        rig.subscribe(receiver)
        recorded = await rig.happen(*([K] * 12))
        await rig.until(lambda: rig.delivered() == 12, "delivered")
        assert missing(recorded, receiver) == {int(receiver.asked[6].data["id"])}


async def test_a_signature_of_another_secret_is_refused_by_who_checks_it(engine: Engine) -> None:
    async with delivering(engine) as rig, receiving(OTHER_SECRET) as receiver:
        rig.subscribe(receiver)
        await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried")
    assert receiver.faults == ["WebhookVerificationError: No matching signature found"]
    assert receiver.kept == {}


@pytest.mark.parametrize(
    "bad",
    [
        Answer(500, body=b"<h1>\x1b[2J no</h1>"),
        Answer(404),
        Answer(302, headers=(("Location", "http://127.0.0.1:1/elsewhere"),)),
        Answer(reset=True),
        Answer(hang=True),
    ],
    ids=["500", "404", "redirect", "reset", "slow"],
)
async def test_what_fails_is_tried_again_with_the_same_id(engine: Engine, bad: Answer) -> None:
    async with delivering(engine, seconds_max=0.3) as rig, receiving(SECRET, [bad, bad]) as receiver:
        rig.subscribe(receiver)
        recorded = await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried once")
        failed = rig.deliveries()[0]
        assert (failed.state, failed.status) == (State.PENDING, 0 if bad.reset or bad.hang else bad.status)
        assert "\x1b" not in failed.error
        await rig.until(lambda: rig.delivered() == 1, "delivered", skip_ms=MINUTE_MS)
        assert rig.deliveries()[0].attempts == 3
    assert missing(recorded, receiver) == set()
    assert len({each.id for each in receiver.asked}) == 1
    assert len(receiver.asked) == 3


async def test_gone_disables_the_subscription_and_is_told(engine: Engine) -> None:
    async with delivering(engine) as rig, receiving(SECRET, [Answer(410)]) as receiver:
        rig.subscribe(receiver)
        await rig.happen(K, K, K)
        await rig.until(lambda: bool(rig.told(Kind.WEBHOOK_FAILING)), "told")
        subscription = rig.subscriptions.get("w0001")
        assert subscription is not None
        assert (subscription.disabled, subscription.revision) == ("the receiver answered 410", 2)
        asked = len(receiver.asked)
        await rig.happen(K)
        assert {each.state for each in rig.deliveries()} <= {State.PARKED, State.DELIVERED}
        assert len(rig.deliveries()) == 3
        assert len(receiver.asked) == asked
        (told,) = rig.told(Kind.WEBHOOK_FAILING)
        assert told.data == {"webhook": "w0001", "why": "is disabled: 410"}


async def test_a_receiver_that_asks_to_be_left_alone_is(engine: Engine) -> None:
    async with (
        delivering(engine) as rig,
        receiving(SECRET, [Answer(429, headers=(("Retry-After", "600"),))]) as receiver,
    ):
        rig.subscribe(receiver)
        await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried")
        assert rig.deliveries()[0].next_ms - rig.clock() > 595_000
        rig.clock.ahead_ms += 590_000
        rig.postman.changed()
        # another subscription shows that the postman has gone round meanwhile
        async with receiving(SECRET) as other:
            rig.subscribe(other, id_="w0002")
            await rig.happen(K)
            await rig.until(lambda: rig.delivered("w0002") == 1, "the other")
        assert rig.deliveries()[0].attempts == 1
        rig.clock.ahead_ms += 30_000
        rig.postman.changed()
        await rig.until(lambda: rig.deliveries()[0].state is State.DELIVERED, "delivered")


async def test_receivers_that_are_dead_delay_nobody_else(engine: Engine) -> None:
    def hang(_number: int, _data: object) -> Answer:
        return Answer(hang=True)

    async with (
        delivering(engine, seconds_max=10) as rig,
        receiving(SECRET, hang) as first,
        receiving(SECRET, hang) as second,
        receiving(SECRET) as alive,
    ):
        for at, receiver in enumerate((first, second, alive)):
            rig.subscribe(receiver, id_=f"w000{at}")
        begun = asyncio.get_running_loop().time()
        recorded = await rig.happen(*([K] * 100))
        await rig.until(lambda: rig.delivered("w0002") == 100, "delivered")
        assert asyncio.get_running_loop().time() - begun < 10  # before a single attempt at the dead has ended
        assert missing(recorded, alive) == set()
        assert len(first.asked) <= 4


async def test_a_receiver_that_is_down_is_asked_seldom_and_gets_all_once_it_is_back(engine: Engine) -> None:
    down = True

    def decide(_number: int, _data: object) -> Answer:
        return Answer(503) if down else Answer()

    async with delivering(engine) as rig, receiving(SECRET, decide) as receiver:
        rig.subscribe(receiver)
        recorded = await rig.happen(*([K] * 200))
        await rig.until(lambda: len(rig.told(Kind.WEBHOOK_FAILING)) == 1, "told", skip_ms=MINUTE_MS)
        # a round asks with four, and after three rounds that failed with one
        assert len(receiver.asked) <= 4 * 3 + FAILURES_TOLD
        down = False
        await rig.until(lambda: rig.delivered() == 200, "delivered", skip_ms=MINUTE_MS)
        assert missing(recorded, receiver) == set()
        # who fails is not told by the way that fails
        assert {each.kind for each in rig.deliveries()} == {K}


async def test_what_is_not_delivered_in_three_days_is_parked_and_can_be_sent_again(engine: Engine) -> None:
    answers = [Answer(500), Answer(500)]
    async with delivering(engine) as rig, receiving(SECRET, answers) as receiver:
        rig.subscribe(receiver)
        (id_,) = await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried")
        rig.clock.ahead_ms += GIVE_UP_MS
        rig.postman.changed()
        await rig.until(lambda: rig.deliveries()[0].state is State.PARKED, "parked")
        again = rig.subscriptions.again("w0001", id_, now_ms=rig.clock())
        assert (again.state, again.attempts) == (State.PENDING, 0)
        rig.postman.changed()
        await rig.until(lambda: rig.delivered() == 1, "delivered")
    assert (len(receiver.asked), receiver.faults) == (3, [])


async def test_too_many_that_wait_are_parked_the_oldest_first_and_told(engine: Engine) -> None:
    async with (
        delivering(engine, pending_max=20, seconds_max=10) as rig,
        receiving(SECRET, lambda *_: Answer(hang=True)) as receiver,
    ):
        rig.subscribe(receiver, choice=Choice(kinds=frozenset({K})))
        recorded = await rig.happen(*([K] * 50))
        parked = [each.happening for each in rig.deliveries(state=State.PARKED)]
        assert parked == recorded[:30]
        (told,) = rig.told(Kind.WEBHOOK_FAILING)
        assert told.data["why"] == "too many deliveries waited; the oldest 30 are parked"
        await rig.happen(*([K] * 5))
        assert len(rig.told(Kind.WEBHOOK_FAILING)) == 1  # once an hour


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (Choice(), {1, 2, 3, 4}),
        (Choice(kinds=frozenset({Kind.DEVICE_CONNECTED})), {1}),
        (Choice(severity=Severity.WARNING), {2, 3, 4}),
        (Choice(severity=Severity.ALARM), {3, 4}),
        (Choice(org="hq"), {1, 2, 3}),
        (Choice(org="hq/st-1"), {1, 2}),
        (Choice(org="hq/st"), set()),  # a name's beginning is no place
    ],
)
async def test_each_subscription_gets_what_it_chose(engine: Engine, choice: Choice, taken: set[int]) -> None:
    async with delivering(engine, senders={}) as rig:
        rig.subscribe("http://127.0.0.1:9/", choice=choice)
        ids = [
            *await rig.happen(Kind.DEVICE_CONNECTED, org="hq/st-1"),
            *await rig.happen(K, org="hq/st-1/post-2"),
            *await rig.happen(Kind.GAP_LOST, org="hq/st-10"),
            *await rig.happen(Kind.BROKER_LOST, org=""),
        ]
        assert {ids.index(each.happening) + 1 for each in rig.deliveries()} == taken


def _tls(directory: Path, authority: ca.Issued, names: list[str]) -> ssl.SSLContext:
    issued = ca.issue_broker(authority, names, now=datetime.now(UTC))
    certificate, key = directory / "receiver.crt", directory / "receiver.key"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    ("names", "trusted", "arrives"),
    [
        (["localhost"], True, True),
        (["localhost"], False, False),
        (["hooks.example.org"], True, False),  # of the same authority, and another's name
    ],
)
async def test_over_tls_the_receiver_proves_its_name(
    engine: Engine, tmp_path: Path, names: list[str], trusted: bool, arrives: bool
) -> None:
    authority = ca.new_ca("receivers", now=datetime.now(UTC))
    other = ca.new_ca("others", now=datetime.now(UTC))
    client = ssl.create_default_context(cadata=(authority if trusted else other).certificate_pem.decode())
    async with (
        delivering(engine, security=client) as rig,
        receiving(SECRET, security=_tls(tmp_path, authority, names), host="localhost") as receiver,
    ):
        rig.subscribe(receiver)
        await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried")
        delivery = rig.deliveries()[0]
    assert (delivery.state is State.DELIVERED) == arrives
    assert bool(receiver.asked) == arrives
    if not arrives:
        assert "certificate verify failed" in delivery.error


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "https://no-such-host.invalid/"]
)
async def test_nothing_is_sent_where_nothing_may_be_sent(engine: Engine, url: str) -> None:
    async with delivering(engine) as rig:
        rig.subscribe(url)  # as an older version may have let it in
        await rig.happen(K)
        await rig.until(lambda: rig.deliveries()[0].attempts == 1, "tried")
        assert rig.deliveries()[0].status == 0
        assert rig.deliveries()[0].error.startswith(("TargetError", "gaierror"))


async def test_an_answer_without_end_is_cut_off(engine: Engine) -> None:
    async with delivering(engine) as rig, receiving(SECRET, [Answer(200, body=b"x" * 5_000_000)]) as receiver:
        rig.subscribe(receiver)
        await rig.happen(K)
        await rig.until(lambda: rig.delivered() == 1, "delivered")


async def test_a_receiver_leaves_nothing_with_us(engine: Engine) -> None:
    cookie = Answer(200, headers=(("Set-Cookie", "who=1; Path=/"),))
    async with delivering(engine) as rig, receiving(SECRET, [cookie, cookie]) as receiver:
        rig.subscribe(receiver)
        for count in (1, 2, 3):
            await rig.happen(K)
            await rig.until(lambda count=count: rig.delivered() == count, "delivered")  # type: ignore[misc]
    assert [got.headers.get("cookie") for got in receiver.asked] == [None] * 3


async def test_a_stop_lets_what_is_under_way_end(engine: Engine) -> None:
    async with receiving(SECRET) as receiver:
        async with delivering(engine) as rig:
            rig.subscribe(receiver)
            recorded = await rig.happen(*([K] * 40))
            await rig.until(lambda: len(receiver.asked) >= 5, "some")
        # whatever was answered for is stored as delivered: nothing of it is sent again
        assert {each.happening for each in rig.deliveries(state=State.DELIVERED)} == {
            int(each.data["id"]) for each in receiver.kept.values()
        }
        async with delivering(engine) as again:
            await again.until(lambda: again.delivered() == 40, "the rest")
        assert missing(recorded, receiver) == set()
        assert len(receiver.asked) == 40
