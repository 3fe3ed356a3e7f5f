"""Who gets what: sessions, subscriptions, retained messages and wills, each publication and delivery judged by the
policy table.

Time is a :class:`Timer`, which an asyncio loop is. What is to be written waits in the sessions until :meth:`flush`,
so that many messages to one client become one write.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import mqtt5

from broker_config import policy, topics
from broker_config.embedded import message as messages
from broker_config.embedded.bounds import BOUNDS, TOPIC_LEVELS_MAX, VERDICTS_REMEMBERED_MAX
from broker_config.embedded.message import Key, Message
from broker_config.embedded.misbehaviour import AT_ONCE, Misbehaviour
from broker_config.embedded.retained import Retained
from broker_config.embedded.session import Delivery, Session, Subscription
from broker_config.embedded.tree import Tree
from broker_config.policy import Action, Identity

SHARE_PREFIX: Final = "$share/"
SENT_NEVER: Final = int(mqtt5.RetainHandling.SEND_NEVER)
SENT_IF_NEW: Final = int(mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS)


class Handle(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """It will not."""


class Timer(Protocol):
    """An asyncio loop, or a test's."""

    def time(self) -> float:
        """Seconds, never going back."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Handle:
        """Call once, in the same thread."""


class Client(Protocol):
    """A connection, as the router needs it."""

    def pump(self) -> None:
        """Write what its session has for it."""

    def end(self, reason: mqtt5.DisconnectReasonCode) -> None:
        """Say *reason* and close; the router has let go of it already."""


class Outcome(NamedTuple):
    """What to answer a publication, and when; None is never."""

    reason: mqtt5.PubAckReasonCode
    acknowledge_after_s: float | None = 0.0


DONE: Final = Outcome(mqtt5.PubAckReasonCode.SUCCESS)
FORBIDDEN: Final = Outcome(mqtt5.PubAckReasonCode.NOT_AUTHORIZED)
TOO_DEEP: Final = Outcome(mqtt5.PubAckReasonCode.TOPIC_NAME_INVALID)
TOO_MUCH: Final = Outcome(mqtt5.PubAckReasonCode.QUOTA_EXCEEDED)


class TooManySessionsError(Exception):
    """One role holds as many sessions as it may."""


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    published: int = 0
    refused: int = 0
    delivered: int = 0
    dropped: int = 0
    """Deliveries that a full queue, or a client's largest packet, had no room for."""


@dataclass(slots=True)
class _Place:
    """A session, and what the router keeps beside it."""

    session: Session
    client: Client | None = None
    will: mqtt5.Will | None = None
    will_alarm: Handle | None = None
    end_alarm: Handle | None = None


_allowed_before = lru_cache(maxsize=VERDICTS_REMEMBERED_MAX)(policy.allowed)


def allowed(identity: Identity, action: Action, topic: str, *, retain: bool = False) -> bool:
    """The policy table's answer, remembered for topics of the contract's length."""
    if len(topic) > topics.TOPIC_BYTES_MAX:
        return policy.allowed(identity, action, topic, retain=retain)
    return _allowed_before(identity, action, topic, retain=retain)


class Router:
    """All the state of a broker. Not thread-safe."""

    def __init__(self, timer: Timer, misbehaviour: Misbehaviour | None = None) -> None:
        self.timer = timer
        self.counters = Counters()
        self.retained = Retained()
        self._misbehaviour = misbehaviour
        self._places: dict[Key, _Place] = {}
        self._filters: Tree[dict[Key, Subscription]] = Tree()
        self._to_pump: dict[Client, None] = {}
        self._sessions = dict.fromkeys(policy.Role, 0)

    @property
    def sessions(self) -> int:
        """With and without a connection."""
        return len(self._places)

    # Sessions

    def connect(
        self,
        identity: Identity,
        key: Key,
        client: Client,
        *,
        clean_start: bool,
        expiry_s: int,
        receive_max: int,
        will: mqtt5.Will | None,
    ) -> tuple[Session, bool]:
        """The session for a new connection, and whether it was there before. Ends the connection that had it.

        Raises:
            TooManySessionsError: there is no room, and nothing has changed.
        """
        place = self._places.get(key)
        bounds = BOUNDS[identity.role]
        if place is None and self._sessions[key.role] >= bounds.sessions_max:
            raise TooManySessionsError
        if place is not None:
            self._take_over(place, ends=clean_start)
            place = self._places.get(key)
        present = place is not None
        if place is None:
            session = Session(
                key, identity, messages_max=bounds.queued_messages_max, bytes_max=bounds.queued_bytes_max
            )
            place = self._places[key] = _Place(session)
            self._sessions[key.role] += 1
        place.client = client
        place.will = will
        place.session.expiry_s = expiry_s
        place.session.begin(receive_max)
        self._to_pump[client] = None
        return place.session, present

    def _take_over(self, place: _Place, *, ends: bool) -> None:
        client, place.client = place.client, None
        if client is not None:
            client.end(mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER)
            self._to_pump.pop(client, None)
            place.session.end()
        if ends or (client is not None and not place.session.expiry_s):
            self._end_session(place)
            return
        _cancel(place.will_alarm, place.end_alarm)
        if place.will is not None and not place.will.will_delay_interval and client is not None:
            self._say_will(place)
        place.will = place.will_alarm = place.end_alarm = None

    def leave(self, session: Session, client: Client, *, with_will: bool) -> None:
        """The connection is over; a no-op for one that was taken over."""
        place = self._places.get(session.key)
        if place is None or place.client is not client:
            return
        place.client = None
        self._to_pump.pop(client, None)
        session.end()
        if not with_will:
            place.will = None
        if not session.expiry_s:
            self._end_session(place)
            return
        now_s = self.timer.time()
        place.end_alarm = self.timer.call_at(now_s + session.expiry_s, lambda: self._expire(place))
        if place.will is not None:
            delay_s = place.will.will_delay_interval
            if not delay_s:
                self._say_will(place)
            elif delay_s < session.expiry_s:  # else the session's end says it
                place.will_alarm = self.timer.call_at(now_s + delay_s, lambda: self._will_is_due(place))

    def _will_is_due(self, place: _Place) -> None:
        self._say_will(place)
        self.flush()

    def _expire(self, place: _Place) -> None:
        self._end_session(place)
        self.flush()

    def _end_session(self, place: _Place) -> None:
        _cancel(place.will_alarm, place.end_alarm)
        session = place.session
        for pattern in tuple(session.subscriptions):
            self.unsubscribe(session, pattern)
        del self._places[session.key]
        self._sessions[session.key.role] -= 1
        self._say_will(place)

    def _say_will(self, place: _Place) -> None:
        will, place.will = place.will, None
        if will is not None:
            session = place.session
            self.publish(session.identity, messages.will(will, session.key, self.timer.time()))

    # Subscriptions

    def subscribe(self, session: Session, subscription: Subscription, retain_handling: int) -> mqtt5.SubAckReasonCode:
        """Grant a well-formed one: what it delivers is the policy table's to say, for each message."""
        pattern = subscription.pattern
        if pattern.startswith(SHARE_PREFIX):
            return mqtt5.SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if pattern.count("/") >= TOPIC_LEVELS_MAX:
            return mqtt5.SubAckReasonCode.TOPIC_FILTER_INVALID
        is_new = pattern not in session.subscriptions
        if is_new and len(session.subscriptions) >= BOUNDS[session.identity.role].subscriptions_max:
            return mqtt5.SubAckReasonCode.QUOTA_EXCEEDED
        session.subscriptions[pattern] = subscription
        subscribers = self._filters.get(pattern)
        if subscribers is None:
            self._filters.put(pattern, {session.key: subscription})
        else:
            subscribers[session.key] = subscription
        if retain_handling != SENT_NEVER and (is_new or retain_handling != SENT_IF_NEW):
            ids = () if subscription.subscription_id is None else (subscription.subscription_id,)
            for message in self.retained.covered(pattern, self.timer.time()):
                self._deliver(session, message, min(message.qos, subscription.qos), retain=True, ids=ids)
        return (
            mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
            if subscription.qos
            else mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE
        )

    def unsubscribe(self, session: Session, pattern: str) -> mqtt5.UnsubAckReasonCode:
        """What was routed already is still delivered."""
        if session.subscriptions.pop(pattern, None) is None:
            return mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED
        subscribers = self._filters.get(pattern)
        assert subscribers is not None, "a session's filter is in the tree"
        del subscribers[session.key]
        if not subscribers:
            self._filters.remove(pattern)
        return mqtt5.UnsubAckReasonCode.SUCCESS

    # Messages

    def publish(self, identity: Identity, message: Message) -> Outcome:
        """Judge, keep, route. *message* is a publication or a will of *identity*."""
        counters = self.counters
        counters.published += 1
        if not allowed(identity, Action.PUBLISH, message.topic, retain=message.retain):
            counters.refused += 1
            return FORBIDDEN
        if message.topic.count("/") >= TOPIC_LEVELS_MAX:
            counters.refused += 1
            return TOO_DEEP
        if self._misbehaviour is None:
            return self._accept(message)
        taken = self._misbehaviour.takes(identity, message)
        if taken is AT_ONCE:
            return self._accept(message)
        self._after(taken.route_after_s, lambda: self._accept(message))
        return Outcome(DONE.reason, taken.acknowledge_after_s)

    def _accept(self, message: Message) -> Outcome:
        if message.retain:
            sender = message.sender
            sender_max = 0 if sender is None else BOUNDS[sender.role].retained_max
            if not self.retained.keep(message, sender_max=sender_max):
                self.counters.refused += 1
                return TOO_MUCH
        self._route(message)
        return DONE

    def _route(self, message: Message) -> None:
        found = self._filters.covering(message.topic)
        places = self._places
        if len(found) == 1 and len(found[0]) == 1:
            # nearly every message of the contract: one server that listens with one filter
            ((key, subscription),) = found[0].items()
            self._deliver_as(places[key].session, message, (subscription,))
            return
        wanted: dict[Key, list[Subscription]] = {}
        for subscribers in found:
            for key, subscription in subscribers.items():
                wanted.setdefault(key, []).append(subscription)
        for key, subscriptions in wanted.items():
            self._deliver_as(places[key].session, message, subscriptions)

    def _deliver_as(self, session: Session, message: Message, subscriptions: Iterable[Subscription]) -> None:
        """Once, however many of its filters cover the topic: at the highest QoS, with the ids of all."""
        qos = -1
        retain = False
        ids: tuple[int, ...] = ()
        for subscription in subscriptions:
            if subscription.no_local and message.sender == session.key:
                continue
            qos = max(qos, subscription.qos)
            retain = retain or (message.retain and subscription.retain_as_published)
            if subscription.subscription_id is not None:
                ids += (subscription.subscription_id,)
        if qos >= 0:
            self._deliver(session, message, min(qos, message.qos), retain=retain, ids=ids)

    def _deliver(self, session: Session, message: Message, qos: int, *, retain: bool, ids: tuple[int, ...]) -> None:
        if not allowed(session.identity, Action.RECEIVE, message.topic):
            return
        if self._misbehaviour is None:
            self._offer(session, Delivery(message, qos, retain, ids))
            return
        for after_s, said in self._misbehaviour.delivers(session.identity, message):
            delivery = Delivery(said, qos, retain, ids)
            if after_s:
                self._after(after_s, lambda delivery=delivery: self._offer(session, delivery))  # type: ignore[misc]
            else:
                self._offer(session, delivery)

    def _offer(self, session: Session, delivery: Delivery) -> None:
        place = self._places.get(session.key)
        if place is None or place.session is not session:
            return  # gone since
        client = place.client
        if client is None and not delivery.qos:
            return  # at most once, and nobody is there
        if session.offer(delivery):
            self.counters.delivered += 1
            if client is not None:
                self._to_pump[client] = None
        else:
            self.counters.dropped += 1

    def _after(self, after_s: float | None, do: Callable[[], object]) -> None:
        if after_s is None:
            return
        if not after_s:
            do()
            return

        def later() -> None:
            do()
            self.flush()

        self.timer.call_at(self.timer.time() + after_s, later)

    def flush(self) -> None:
        """Let every client write what has come for it. Whoever calls into the router ends with this."""
        while self._to_pump:
            clients, self._to_pump = self._to_pump, {}
            for client in clients:
                client.pump()


def _cancel(*alarms: Handle | None) -> None:
    for alarm in alarms:
        if alarm is not None:
            alarm.cancel()
