"""Every broker is held to the policy table, judged by what is delivered, never by SUBACK or PUBACK.

Absence is proved by a sentinel: a permitted message sent after the forbidden one, on a path that keeps order.
Where a broker can do less than the table says, the case tells it, and who must then check instead.
"""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import mqtt5
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from broker_config import limits, policy, topics
from broker_config.ids import DeviceId, device_id, server_client_id, server_user, shard_of
from broker_config.policy import Action, Identity, Role, allowed
from broker_config.render.mosquitto import DEVICE_CA_FILE
from broker_config.topics import Down, Up, down, matches, up
from fleet_server.access import ca
from tests.contract.conftest import Broker
from tests.contract.wire import Client, GoneError
from tests.servers import HOST, Credentials

NOW = datetime.now(UTC)
EVERYTHING = ("#", "$SYS/#", "$CONTROL/#")
SENTINEL = b"sentinel"
SHARE = "$share/group/"
_sentinels = count(1)


@dataclass
class Cast:
    """Two devices and the server, connected; and everything the server may hear reaches it."""

    broker: Broker
    own: DeviceId
    sibling: DeviceId
    clients: dict[str, Client]

    def identity(self, name: str) -> Identity:
        return {
            "own": policy.device(self.own),
            "sibling": policy.device(self.sibling),
            "server": policy.server(self.broker.site),
        }[name]

    def arrived(self) -> dict[str, list[mqtt5.PublishPacket]]:
        """What each has received until now."""
        sentinel = b"sentinel %d" % next(_sentinels)
        self.clients["own"].publish(up(self.own, Up.EVENT), sentinel)
        for device in (self.own, self.sibling):
            self.clients["server"].publish(down(device, Down.TWIN), sentinel)
        return {name: client.before(sentinel) for name, client in self.clients.items()}


def connected(broker: Broker, device: DeviceId, **options: object) -> Client:
    client = Client(broker.device_port, broker.device(device))
    client.connect(device, **options)  # type: ignore[arg-type]
    return client


def server_connected(broker: Broker, *filters: str) -> Client:
    client = Client(broker.server_port, broker.server())
    client.connect(server_client_id(broker.site))
    if filters:
        client.subscribe(*filters)
    return client


@pytest.fixture
def cast(broker: Broker, own: DeviceId, sibling: DeviceId) -> Iterator[Cast]:
    with (
        connected(broker, own) as own_client,
        connected(broker, sibling) as sibling_client,
        server_connected(broker, topics.up_tree(own), topics.up_tree(sibling)) as server_client,
    ):
        own_client.subscribe(topics.down_filter(own))
        sibling_client.subscribe(topics.down_filter(sibling))
        yield Cast(broker, own, sibling, {"own": own_client, "sibling": sibling_client, "server": server_client})
    with server_connected(broker) as sweeper:
        for left in (up(own, Up.STATUS), up(sibling, Up.STATUS), topics.SERVER_STATE):
            sweeper.publish(left, b"", retain=True)


# Publishing: everybody listens to everything, and gets what the table says.


@pytest.mark.parametrize(
    ("topic", "by_own", "by_server"),
    [
        *[(f"{{own}}/up/{channel}", True, channel is Up.STATUS) for channel in Up],
        *[(f"{{sibling}}/up/{channel}", False, channel is Up.STATUS) for channel in Up],
        *[(f"{{own}}/dn/{channel}", False, True) for channel in Down],
        *[(f"{{sibling}}/dn/{channel}", False, True) for channel in Down],
        # a broker cannot compute a shard, so the table allows any: ingest drops and counts it
        ("ff/1/zz/{own_id}/up/telemetry", True, False),
        ("ff/1//{own_id}/up/telemetry", True, False),
        ("{own}/up", True, False),  # "#" covers its parent too; ingest refuses the depth
        ("{own}/up/telemetry/deeper", True, False),
        ("{own}/up/nothing", True, False),
        ("ff/1/server/state", False, True),
        ("ff/1/server/other", False, False),
        ("{own}", False, False),
        ("{own}/", False, False),
        ("{own}/sideways/telemetry", False, False),
        ("ff/2/00/{own_id}/up/telemetry", False, False),
        ("ff/1/00/00/{own_id}/up/telemetry", False, False),
        ("/{own}/up/telemetry", False, False),
        ("ff", False, False),
        ("anything", False, False),
        ("$SYS/broker/version", False, False),
        ("$CONTROL/dynamic-security/v1", False, False),
        ("$share/group/{sibling}/dn/twin", False, False),
    ],
)
def test_a_publication_reaches_those_whom_the_table_allows(
    cast: Cast, topic: str, by_own: bool, by_server: bool
) -> None:
    name = topic.format(own=topics.base(cast.own), sibling=topics.base(cast.sibling), own_id=cast.own)
    for client in cast.clients.values():
        client.subscribe(*EVERYTHING)
    verdicts = {"own": by_own, "server": by_server}
    for publisher, verdict in verdicts.items():
        assert allowed(cast.identity(publisher), Action.PUBLISH, name) is verdict
        cast.clients[publisher].publish(name, publisher.encode())
    for receiver, messages in cast.arrived().items():
        may_hear = allowed(cast.identity(receiver), Action.RECEIVE, name)
        expected = {publisher for publisher, verdict in verdicts.items() if verdict and may_hear}
        assert {m.payload.decode() for m in messages if m.topic == name} == expected
        assert [m.topic for m in messages if m.topic != name] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "{own}/dn/+",
        "{own}/#",
        "{own}/up/#",  # a device does not hear itself
        "{sibling}/dn/+",
        "{sibling}/dn/twin",
        "{sibling}/up/telemetry",
        "#",
        "+/#",
        "+/+/+/+/+/+",
        "ff/#",
        "ff/1/+/+/up/#",
        "ff/1/+/+/dn/#",
        "ff/1/server/state",
        "ff/1/server/#",
        "$share/group/{own}/dn/+",
        "$share/group/{sibling}/dn/+",
        "$share/group/#",
        "$share/group/ff/1/+/+/up/telemetry",
        "$SYS/#",
        "$SYS/broker/clients/connected",
        "$CONTROL/#",
    ],
)
def test_a_subscription_delivers_what_the_table_allows(cast: Cast, pattern: str) -> None:
    device = cast.clients["own"]
    asked = pattern.format(own=topics.base(cast.own), sibling=topics.base(cast.sibling))
    device.subscribe(asked)
    said = [
        (device, up(cast.own, Up.TELEMETRY)),
        (cast.clients["sibling"], up(cast.sibling, Up.TELEMETRY)),
        (cast.clients["server"], down(cast.own, Down.COMMAND)),
        (cast.clients["server"], down(cast.sibling, Down.TWIN)),
        (cast.clients["server"], topics.SERVER_STATE),
    ]
    for client, topic in said:
        client.publish(topic, b"said")
    shared, unshared = asked.startswith(SHARE), asked.removeprefix(SHARE)
    standing = topics.down_filter(cast.own)  # what every cast member subscribes to
    allowed_here = {topic for _, topic in said if allowed(cast.identity("own"), Action.RECEIVE, topic)}
    surely = {topic for topic in allowed_here if matches(standing, topic)}
    asked_for = {topic for topic in allowed_here if matches(unshared, topic)}
    heard = {message.topic for message in cast.arrived()["own"]}
    if shared:  # a broker may not share, and say so or not: nothing of ours relies on it
        assert surely <= heard <= surely | asked_for
    else:
        assert heard == surely | asked_for


LEVELS = st.sampled_from(
    [
        "ff",
        "1",
        "2",
        "00",
        "{shard}",
        "{own}",
        "{sibling}",
        "server",
        "state",
        "up",
        "dn",
        "status",
        "twin",
        "",
        "$SYS",
    ]
)
SHAPES = st.one_of(
    st.lists(LEVELS, min_size=1, max_size=8),
    # near misses of the real thing: one level of it changed
    st.tuples(st.integers(0, 5), LEVELS, st.sampled_from(["own", "sibling"]), st.sampled_from(["up", "dn"])).map(
        lambda drawn: [
            drawn[1] if at == drawn[0] else level
            for at, level in enumerate(["ff", "1", "00", f"{{{drawn[2]}}}", drawn[3], "twin"])
        ]
    ),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, publisher=st.sampled_from(["own", "server"]))
def test_any_topic_is_delivered_as_the_table_says(cast: Cast, shape: list[str], publisher: str) -> None:
    levels = {"{own}": cast.own, "{sibling}": cast.sibling, "{shard}": shard_of(cast.own)}
    topic = "/".join(levels.get(level, level) for level in shape)
    assume(topic)
    payload = b"example %d" % next(_sentinels)
    for client in cast.clients.values():
        client.subscribe(*EVERYTHING)
    cast.clients[publisher].publish(topic, payload)
    may_say = allowed(cast.identity(publisher), Action.PUBLISH, topic)
    for receiver, messages in cast.arrived().items():
        may_hear = allowed(cast.identity(receiver), Action.RECEIVE, topic)
        assert (payload in {m.payload for m in messages}) is (may_say and may_hear)


# Retained


# The table says no, and an access list cannot: the server subscribes with retain handling 2 there.
KEPT_ALL_THE_SAME = {("mosquitto", "{own}/up/telemetry")}


@pytest.mark.parametrize(
    ("topic", "verdict"),
    [
        ("{own}/up/status", True),
        ("{own}/up/telemetry", False),
        ("{sibling}/up/status", False),
        ("{own}/dn/twin", False),
        ("ff/1/server/state", False),
    ],
)
def test_what_a_device_may_leave_behind(
    cast: Cast, topic: str, verdict: bool, request: pytest.FixtureRequest
) -> None:
    broker_keeps = verdict or (request.node.callspec.params["broker"], topic) in KEPT_ALL_THE_SAME
    name = topic.format(own=topics.base(cast.own), sibling=topics.base(cast.sibling))
    assert allowed(cast.identity("own"), Action.PUBLISH, name, retain=True) is verdict
    cast.clients["own"].publish(name, b"kept by a device", retain=True)
    with server_connected(cast.broker) as later, connected(cast.broker, cast.own) as device:
        later.subscribe(topics.up_tree(cast.own), topics.up_tree(cast.sibling), topics.SERVER_STATE)
        device.subscribe(topics.down_filter(cast.own), topics.SERVER_STATE)
        device.publish(up(cast.own, Up.EVENT), SENTINEL)
        kept = {m.topic for m in later.before(SENTINEL) if m.retain and m.payload == b"kept by a device"}
        assert kept == ({name} if broker_keeps else set())
        later.publish(down(cast.own, Down.TWIN), SENTINEL)
        assert [m.topic for m in device.before(SENTINEL) if m.payload == b"kept by a device"] == []
        device.publish(name, b"", retain=True)


def test_a_device_that_comes_later_finds_the_servers_state(cast: Cast) -> None:
    cast.clients["server"].publish(topics.SERVER_STATE, b"state", retain=True)
    with connected(cast.broker, cast.own) as device:
        device.subscribe(topics.SERVER_STATE)
        found = device.receive()
        assert (found.topic, found.payload, found.retain) == (topics.SERVER_STATE, b"state", True)


def test_the_server_clears_the_status_of_a_device_that_is_gone_for_good(cast: Cast) -> None:
    status = up(cast.own, Up.STATUS)
    cast.clients["own"].publish(status, b"birth", retain=True)
    cast.clients["server"].publish(status, b"", retain=True)
    with server_connected(cast.broker, status, up(cast.own, Up.EVENT)) as later:
        cast.clients["own"].publish(up(cast.own, Up.EVENT), SENTINEL)
        assert later.before(SENTINEL) == []


# Wills. A takeover ends the old connection before the new one is answered, so the will is out by then.


@pytest.mark.parametrize(
    ("topic", "verdict"),
    [
        ("{own}/up/status", True),
        ("{sibling}/up/status", False),
        ("{sibling}/dn/command", False),
        ("{own}/dn/command", False),
        ("ff/1/server/state", False),
    ],
)
def test_a_will_is_a_publication_like_any_other(cast: Cast, topic: str, verdict: bool) -> None:
    name = topic.format(own=topics.base(cast.own), sibling=topics.base(cast.sibling))
    for client in cast.clients.values():
        client.subscribe("#")
    assert allowed(cast.identity("own"), Action.PUBLISH, name, retain=True) is verdict
    will = mqtt5.Will(name, payload=b"gone", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)
    try:
        connected(cast.broker, cast.own, will=will).vanish()
    except GoneError:
        assert not verdict  # refused at once: as good
    cast.clients["own"] = connected(cast.broker, cast.own)
    cast.clients["own"].subscribe(*EVERYTHING)
    seen = {(who, m.topic) for who, messages in cast.arrived().items() for m in messages if m.payload == b"gone"}
    assert seen == ({("server", name)} if verdict else set())


def test_a_device_that_leaves_in_order_has_no_will(cast: Cast) -> None:
    will = mqtt5.Will(up(cast.own, Up.STATUS), payload=b"gone", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)
    connected(cast.broker, cast.own, will=will).disconnect()
    cast.clients["own"] = connected(cast.broker, cast.own)
    cast.clients["own"].publish(up(cast.own, Up.EVENT), SENTINEL)
    assert cast.clients["server"].before(SENTINEL) == []


def delayed_will(device: DeviceId, epoch: bytes) -> mqtt5.Will:
    return mqtt5.Will(
        up(device, Up.STATUS),
        payload=b"will " + epoch,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        retain=True,
        will_delay_interval=limits.WILL_DELAY_S,
    )


def test_a_resumed_session_within_the_delay_has_no_will(cast: Cast) -> None:
    options = {"clean_start": False, "session_expiry_s": 60}
    connected(cast.broker, cast.own, will=delayed_will(cast.own, b"1"), **options).vanish()
    cast.clients["own"] = connected(cast.broker, cast.own, will=delayed_will(cast.own, b"2"), **options)
    cast.clients["own"].publish(up(cast.own, Up.EVENT), SENTINEL)
    assert cast.clients["server"].before(SENTINEL) == []


def test_after_a_clean_start_a_will_carries_the_epoch_of_the_connection_that_ended(cast: Cast) -> None:
    # Before or after the new birth, or not at all: brokers differ, and so a will counts only with the epoch of the
    # last birth.
    status = up(cast.own, Up.STATUS)
    options = {"clean_start": True, "session_expiry_s": limits.SESSION_EXPIRY_S}
    first = connected(cast.broker, cast.own, will=delayed_will(cast.own, b"1"), **options)
    first.publish(status, b"birth 1", retain=True)
    first.vanish()
    cast.clients["own"] = connected(cast.broker, cast.own, will=delayed_will(cast.own, b"2"), **options)
    cast.clients["own"].publish(status, b"birth 2", retain=True)
    cast.clients["own"].publish(up(cast.own, Up.EVENT), SENTINEL)
    heard = [message.payload for message in cast.clients["server"].before(SENTINEL)]
    assert [payload for payload in heard if payload.startswith(b"birth")] == [b"birth 1", b"birth 2"]
    assert set(heard) - {b"birth 1", b"birth 2"} <= {b"will 1"}


# Sessions and identities


def test_the_same_certificate_takes_its_own_session_over(cast: Cast) -> None:
    with connected(cast.broker, cast.own) as second:
        assert cast.clients["own"].gone() in (None, mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER)
        second.publish(up(cast.own, Up.EVENT), b"from the second")
        assert cast.clients["server"].receive().payload == b"from the second"


def test_what_was_not_acknowledged_is_delivered_again(cast: Cast) -> None:
    options = {"clean_start": False, "session_expiry_s": 60}
    first = connected(cast.broker, cast.own, **options)
    first.subscribe(topics.down_filter(cast.own))
    for payload in (b"1", b"2", b"3"):
        cast.clients["server"].publish(down(cast.own, Down.RECEIPT), payload)
    assert [first.receive(ack=payload == b"1").payload for payload in (b"1", b"2", b"3")] == [b"1", b"2", b"3"]
    first.ping()  # the one acknowledgement has arrived
    first.vanish()
    second = Client(cast.broker.device_port, cast.broker.device(cast.own))
    assert second.connect(cast.own, clean_start=False, session_expiry_s=60).session_present
    again = [second.receive() for _ in range(2)]
    assert [(m.payload, m.duplicate) for m in again] == [(b"2", True), (b"3", True)]
    second.vanish()


@pytest.mark.parametrize("whose", ["own", "server"])
def test_a_client_id_cannot_be_stolen(cast: Cast, whose: str) -> None:
    stolen = {"own": str(cast.own), "server": server_client_id(cast.broker.site)}[whose]
    with Client(cast.broker.device_port, cast.broker.device(cast.sibling)) as thief:
        try:
            thief.connect(stolen, clean_start=False, session_expiry_s=60)
            thief.publish(up(cast.own, Up.EVENT), b"by the thief")
        except GoneError:
            pass  # refused: as good
        # the owner's connection is alive, and it is the only one that hears the owner's messages
        cast.clients["own"].ping()
        cast.clients["server"].ping()
        cast.clients["sibling"] = connected(cast.broker, cast.sibling)
        cast.clients["sibling"].subscribe(topics.down_filter(cast.sibling))
        assert cast.arrived() == {"own": [], "sibling": [], "server": []}


def test_a_user_name_in_the_packet_changes_nothing(cast: Cast) -> None:
    with Client(cast.broker.device_port, cast.broker.device(cast.own)) as client:
        try:
            client.connect(cast.own, username=server_user(cast.broker.site))
        except GoneError:
            return  # refused: as good
        client.publish(down(cast.sibling, Down.COMMAND), b"forged")
        cast.clients["server"].publish(down(cast.sibling, Down.TWIN), SENTINEL)
        assert cast.clients["sibling"].before(SENTINEL) == []


def forged(issuer: ca.Issued, common_name: str) -> ca.Issued:
    """What an authority would sign that checks nothing at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns that the name is too long
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)])
    return ca._issue(issuer, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now=NOW, days=1)


STOLEN_AUTHORITY = {
    (
        "mosquitto",
        "{server_user}",
    ): "one access list for both listeners: only the authority keeps this name out"
}


@pytest.mark.parametrize(
    "name",
    ["_fleet-server", "{client_id}", "{server_user}", "server", "+", "#", "Own", "own/up", "{own}/up", "_", "a" * 64],
)
def test_a_device_named_like_something_else_is_still_a_device(
    cast: Cast, name: str, request: pytest.FixtureRequest
) -> None:
    if reason := STOLEN_AUTHORITY.get((request.node.callspec.params["broker"], name)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    site = cast.broker.site
    common_name = name.format(client_id=server_client_id(site), server_user=server_user(site), own=cast.own)
    if name == "{client_id}":
        cast.clients["server"].vanish()  # whoever is called so takes the connection over: what then?
    identity = Identity(Role.DEVICE, common_name)
    victim = (up(cast.own, Up.TELEMETRY), down(cast.sibling, Down.COMMAND), topics.SERVER_STATE)
    assert not any(allowed(identity, Action.PUBLISH, topic) for topic in victim)
    credentials = cast.broker.credentials("forged", forged(cast.broker.device_ca, common_name))
    with Client(cast.broker.device_port, credentials) as client:
        try:
            client.connect(common_name)
            client.subscribe("ff/1/+/+/up/#", "ff/1/+/+/dn/#")
            for topic in victim:
                client.publish(topic, b"forged")
        except GoneError:
            pass  # refused: as good
        else:
            cast.clients["own"].publish(up(cast.own, Up.EVENT), b"secret")
            client.ping()
            assert not client.pending()
    if name == "{client_id}":
        cast.clients["server"] = server_connected(cast.broker)
    cast.clients["server"].publish(down(cast.sibling, Down.TWIN), SENTINEL)
    assert cast.clients["sibling"].before(SENTINEL) == []


def test_our_authority_signs_no_device_with_the_servers_whole_name(broker: Broker) -> None:
    # See STOLEN_AUTHORITY. The authority prevents it twice, by form and by length.
    for name in (server_user(broker.site), server_client_id(broker.site)):
        with pytest.raises(ValueError, match="device id"):
            device_id(name)
        with pytest.raises(ValueError, match="length"):
            ca.issue_device(broker.device_ca, DeviceId(name), now=NOW)


# Who gets in at all


def foreign(broker: Broker) -> Credentials:
    return broker.credentials("foreign", ca.issue_device(ca.new_ca("foreign", now=NOW), device_id("own"), now=NOW))


def expired(broker: Broker) -> Credentials:
    issued = ca.issue_device(broker.device_ca, device_id("old"), now=NOW - timedelta(hours=1), days=0)
    return broker.credentials("expired", issued)


def the_brokers_own(broker: Broker) -> Credentials:
    return broker.credentials("imposter", ca.issue_broker(broker.server_ca, [HOST], now=NOW))


STRANGERS: dict[str, Callable[[Broker], Credentials | None]] = {
    "nobody": lambda _: None,
    "foreign authority": foreign,
    "expired": expired,
    "server": lambda broker: broker.server(),
    "broker": the_brokers_own,
    "device": lambda broker: broker.device(device_id("stranger")),
}


@pytest.mark.parametrize(
    ("listener", "who"),
    [
        ("device", "nobody"),
        ("device", "foreign authority"),
        ("device", "expired"),
        ("device", "server"),
        ("device", "broker"),
        ("server", "nobody"),
        ("server", "foreign authority"),
        ("server", "device"),
        ("server", "broker"),  # signed by the right authority, and no client's certificate
    ],
)
def test_who_is_not_let_in(broker: Broker, own: DeviceId, listener: str, who: str) -> None:
    credentials = STRANGERS[who](broker)
    port = {"device": broker.device_port, "server": broker.server_port}[listener]
    with pytest.raises(GoneError), Client(port, credentials, ca=broker.server()) as client:
        client.connect(own)


@pytest.mark.parametrize("listener", ["device", "server"])
def test_nothing_is_said_without_tls(broker: Broker, listener: str) -> None:
    port = {"device": broker.device_port, "server": broker.server_port}[listener]
    with socket.create_connection((HOST, port), timeout=5) as plain:
        plain.sendall(mqtt5.ConnectPacket("anonymous", clean_start=True).write())
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(1) in {b"", b"\x15"}  # the end, perhaps after a TLS alert: no CONNACK, which is 0x20
    with pytest.raises(GoneError), Client(port, None, ca=broker.server()) as client:
        client.connect("anonymous")


def test_a_site_whose_device_authority_signed_itself_works_as_it_did(own_broker: Broker) -> None:
    old = ca.new_ca("devices", now=NOW)
    device = device_id("old-1")
    credentials = own_broker.credentials(device, ca.issue_device(old, device, now=NOW))
    (credentials.ca.parent / DEVICE_CA_FILE).write_bytes(old.certificate_pem)
    own_broker.crl = ca.revocation_list(old, [], now=NOW)
    own_broker.restart()
    connected(own_broker, device).disconnect()
    with pytest.raises(GoneError):
        connected(own_broker, device_id("new-1"))


def test_a_revoked_certificate_is_refused_and_the_others_are_not(own_broker: Broker) -> None:
    lost, kept = device_id("lost"), device_id("kept")
    revoked = x509.load_pem_x509_certificate(own_broker.device(lost).certificate.read_bytes())
    own_broker.crl = ca.revocation_list(own_broker.device_ca, [revoked], now=NOW)
    own_broker.restart()
    connected(own_broker, kept).disconnect()
    with pytest.raises(GoneError):
        connected(own_broker, lost)
    server_connected(own_broker).disconnect()


# Bounds


@pytest.mark.parametrize("asked_s", [0, limits.KEEP_ALIVE_S_MAX + 1, 65_535])
def test_no_device_is_silent_for_longer_than_the_bound(broker: Broker, own: DeviceId, asked_s: int) -> None:
    with Client(broker.device_port, broker.device(own)) as client:
        assert client.connect(own, keep_alive_s=asked_s).server_keep_alive == limits.KEEP_ALIVE_S_MAX


def test_the_broker_tells_its_bounds(broker: Broker, own: DeviceId) -> None:
    with Client(broker.device_port, broker.device(own)) as client:
        told = client.connect(own, keep_alive_s=limits.KEEP_ALIVE_S)
        assert told.server_keep_alive is None
        assert told.max_packet_size == limits.PACKET_BYTES_MAX
        assert told.max_qos is mqtt5.QoS.AT_LEAST_ONCE
        assert told.retain_available


def test_a_batch_of_the_largest_size_passes(cast: Cast) -> None:
    payload = b"x" * limits.BATCH_BYTES_MAX
    cast.clients["own"].publish(up(cast.own, Up.TELEMETRY), payload)
    assert cast.clients["server"].receive().payload == payload


# Packets that are none: the one connection dies, and everybody else goes on.

CONNECT = mqtt5.ConnectPacket("rude", clean_start=True).write()
TOPIC = b"\x00\x04ff/1"
MALFORMED_AFTER_CONNECT = {
    "remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "remaining length over the bound": b"\x30\x81\x80\x10",
    "oversize packet": b"\x30\xff\xff\x7f" + TOPIC + b"\x00",
    "reserved packet type 0": b"\x00\x00",
    "QoS 3": b"\x36\x09" + TOPIC + b"\x00\x01\x00",
    "QoS 2, which is never used": b"\x34\x09" + TOPIC + b"\x00\x01\x00",
    "reserved bits of SUBSCRIBE": b"\x80\x0a\x00\x01\x00" + TOPIC + b"\x01",
    "reserved bits of UNSUBSCRIBE": b"\xa0\x09\x00\x01\x00" + TOPIC,
    "reserved bits of subscription options": b"\x82\x0a\x00\x01\x00" + TOPIC + b"\xc1",
    "SUBSCRIBE to nothing": b"\x82\x03\x00\x01\x00",
    "packet id 0": b"\x32\x09" + TOPIC + b"\x00\x00\x00",
    "topic with +": b"\x32\x0b\x00\x06ff/1/+\x00\x01\x00",
    "topic with #": b"\x32\x0b\x00\x06ff/1/#\x00\x01\x00",
    "topic empty, without an alias": b"\x32\x05\x00\x00\x00\x01\x00",
    "topic of invalid UTF-8": b"\x32\x09\x00\x04ff/\xff\x00\x01\x00",
    "topic with a surrogate": b"\x32\x08\x00\x03\xed\xa0\x80\x00\x01\x00",
    "topic with NUL": b"\x32\x09\x00\x04ff/\x00\x00\x01\x00",
    "topic longer than its packet": b"\x32\x04\x00\xffff",
    "topic alias 0": b"\x32\x0c" + TOPIC + b"\x00\x01\x03\x23\x00\x00",
    "topic alias over the bound": b"\x32\x0c" + TOPIC + b"\x00\x01\x03\x23\xff\xff",
    "unknown property": b"\x32\x0b" + TOPIC + b"\x00\x01\x02\x7f\x00",
    "properties longer than the packet": b"\x32\x0a" + TOPIC + b"\x00\x01\x7f\x00",
    "filter with # in its middle": b"\x82\x0c\x00\x01\x00\x00\x06ff/#/1\x01",
    "filter with a partial +": b"\x82\x0b\x00\x01\x00\x00\x05ff/1+\x01",
    "second CONNECT": CONNECT,
    "a CONNACK from a client": b"\x20\x03\x00\x00\x00",
}
# Wrong too; Mosquitto overlooks them.
PERHAPS_OVERLOOKED = {
    "a SUBACK from a client": b"\x90\x04\x00\x01\x00\x00",
    "a shared subscription without a filter": b"\x82\x0e\x00\x01\x00\x00\x08$share/g\x01",
    "a PUBACK of nothing": b"\x40\x02\x00\x07",
}
MALFORMED_AT_FIRST = {
    "PUBLISH before CONNECT": b"\x30\x07" + TOPIC + b"\x00",
    "PINGREQ before CONNECT": b"\xc0\x00",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "another protocol's name": b"\x10\x0f\x00\x04NOPE\x05\x02\x00\x1e\x00\x00\x02id",
    "a version from the future": b"\x10\x0f\x00\x04MQTT\x09\x02\x00\x1e\x00\x00\x02id",
    "reserved connect flag": b"\x10\x0f\x00\x04MQTT\x05\x03\x00\x1e\x00\x00\x02id",
    "a will with QoS 3": b"\x10\x14\x00\x04MQTT\x05\x1e\x00\x1e\x00\x00\x02id\x00\x00\x01t\x00",
    "CONNECT cut short": b"\x10\x05\x00\x04MQT",
    "remaining length of five bytes": b"\x10\xff\xff\xff\xff\x01",
    "client id of invalid UTF-8": b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x02\xff\xfe",
}


@pytest.mark.parametrize("name", MALFORMED_AFTER_CONNECT)
def test_a_malformed_packet_ends_its_own_connection_only(cast: Cast, name: str) -> None:
    with connected(cast.broker, device_id("rude")) as rude:
        rude.send(MALFORMED_AFTER_CONNECT[name])
        rude.wait_for_end()
    assert cast.arrived() == {"own": [], "sibling": [], "server": []}


@pytest.mark.parametrize("name", MALFORMED_AT_FIRST)
def test_a_malformed_beginning_ends_its_own_connection_only(cast: Cast, name: str) -> None:
    with Client(cast.broker.device_port, cast.broker.device(device_id("rude"))) as rude:
        rude.send(MALFORMED_AT_FIRST[name])
        rude.wait_for_end()
    assert cast.arrived() == {"own": [], "sibling": [], "server": []}


@pytest.mark.parametrize("name", PERHAPS_OVERLOOKED)
def test_what_a_broker_may_overlook_harms_nobody(cast: Cast, name: str) -> None:
    with connected(cast.broker, device_id("rude")) as rude, contextlib.suppress(GoneError):
        rude.send(PERHAPS_OVERLOOKED[name])
        rude.ping()
    assert cast.arrived() == {"own": [], "sibling": [], "server": []}


def test_tls_1_1_is_not_spoken(broker: Broker, own: DeviceId) -> None:
    credentials = broker.device(own)
    context = ssl.create_default_context(cafile=str(credentials.ca))
    context.load_cert_chain(credentials.certificate, credentials.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # else it is our own side that refuses
    with (
        socket.create_connection((HOST, broker.device_port), timeout=5) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"),
    ):
        context.wrap_socket(plain, server_hostname=HOST)
