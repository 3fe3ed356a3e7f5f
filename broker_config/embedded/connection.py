"""One client's connection: bytes in, packets judged, bytes out. Knows the protocol, and neither sockets nor TLS."""

from typing import Final, Protocol

import mqtt5
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode

from broker_config import limits
from broker_config.embedded import wire
from broker_config.embedded.bounds import (
    CONNECT_WAIT_S,
    FILTERS_AT_ONCE_MAX,
    KEEP_ALIVE_GRACE,
    SESSION_EXPIRY_S_MAX,
)
from broker_config.embedded.message import Key, published
from broker_config.embedded.router import Handle, Router, TooManySessionsError, allowed
from broker_config.embedded.session import Session, Subscription
from broker_config.embedded.wire import WireError
from broker_config.ids import BadIdError, device_id
from broker_config.policy import Action, Identity, Role
from broker_config.text import shown

RECEIVE_MAX: Final = limits.SERVER_INFLIGHT_MESSAGES_MAX
"""Publications of one client that the broker may owe an acknowledgement; and messages it sends without one."""
PINGRESP: Final = mqtt5.PingRespPacket().write()
SUCCESS: Final = mqtt5.PubAckReasonCode.SUCCESS
CLIENT_ID_CHARS_MAX: Final = 256


class Socket(Protocol):
    """Where the bytes go. All may be called after the end, and do nothing then."""

    def write(self, data: bytes, /) -> None:
        """Send, or buffer within the bound."""

    def close(self) -> None:
        """Once what was written is sent."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A CONNECT that is answered with a reason."""

    def __init__(self, reason: ConnAckReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Connection:
    """From the handshake's end to the socket's.

    ``ended``: why, once it is over for a reason of ours; the adapter logs it.
    """

    def __init__(self, router: Router, socket: Socket, identity: Identity) -> None:
        self.ended = ""
        self.identity = identity
        self._router = router
        self._socket = socket
        self._buffer = b""
        self._out: list[bytes] = []
        self._session: Session | None = None
        self._over = False
        self._blocked = False
        self._owed = 0
        self._has_room = False
        self._packet_bytes_max = limits.PACKET_BYTES_MAX
        self._asked_expiry_s = 0
        self._silence_s_max = CONNECT_WAIT_S
        self._heard_s = router.timer.time()
        self._alarm: Handle = router.timer.call_at(self._heard_s + CONNECT_WAIT_S, self._silent)

    # From the socket

    def receive(self, data: bytes) -> None:
        """Any bytes at all; what they cause is written before this returns."""
        if self._over:
            return
        self._heard_s = self._router.timer.time()
        view = memoryview(self._buffer + data if self._buffer else data)
        at = 0
        if self._session is None and view[0] != wire.CONNECT_BYTE:
            self._hang_up("no CONNECT")
            return
        try:
            while at < len(view) and not self._over:
                rest = view[at:]
                try:
                    wire.check_size(rest)
                    packet, size = mqtt5.read(rest)
                except IndexError:
                    break  # the rest of the packet has not come yet
                at += size
                self._handle(packet, rest[:size])
        except WireError as error:
            self._refuse(error.reason, str(error))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the codec panics, outside Exception, on some bad UTF-8
            if not _is_codecs(error):
                raise
            if self._session is None:
                self._refuse_beginning(view[at:], error)
            else:
                self._refuse(wire.reason_of(error), f"malformed packet: {shown(error)}")
        self._buffer = b"" if self._over else bytes(view[at:])
        if self._has_room:  # once for all that was acknowledged
            self._has_room = False
            self.pump()
        self._flush()
        self._router.flush()

    def block(self) -> None:
        """The socket takes no more: messages wait in the session."""
        self._blocked = True

    def unblock(self) -> None:
        """The socket takes more."""
        self._blocked = False
        self.pump()

    def lost(self) -> None:
        """The socket is gone, whoever closed it."""
        self._finish(with_will=True)
        self._router.flush()

    # From the router

    def pump(self) -> None:
        """Write what the session has, as far as window and socket go."""
        session = self._session
        if session is None or self._over:
            return
        now_s = self._router.timer.time()
        out = self._out
        while not self._blocked and (sending := session.next(now_s)) is not None:
            delivery = sending.delivery
            packet = delivery.message.packet(
                delivery.qos,
                sending.packet_id,
                delivery.retain,
                sending.duplicate,
                delivery.subscription_ids,
                now_s,
            )
            if len(packet) > self._packet_bytes_max:  # as if it had been sent (MQTT 5.0, section 3.1.2.11.4)
                self._router.counters.dropped += 1
                if sending.packet_id is not None:
                    session.acknowledge(sending.packet_id)
                continue
            out.append(packet)
            if len(out) >= 64:
                self._flush()
        self._flush()

    def end(self, reason: DisconnectReasonCode) -> None:
        """Say *reason* and close. No will: that is the router's to say."""
        self._session = None
        if not self._over:
            self._out.append(mqtt5.DisconnectPacket(reason_code=reason).write())
            self._hang_up(f"ended with reason {int(reason):#x}")

    # Packets

    def _handle(self, packet: mqtt5.Packet, raw: memoryview) -> None:
        session = self._session
        if session is None:
            if type(packet) is not mqtt5.ConnectPacket:
                self._hang_up("a packet before CONNECT")
                return
            wire.check_connect(raw)
            self._connect(packet)
        elif type(packet) is mqtt5.PublishPacket:
            self._publish(session, packet)
        elif type(packet) is mqtt5.PubAckPacket:
            # What nothing was in flight for is overlooked: MQTT 5 names no reason for it, and a client may well
            # acknowledge twice what was delivered again.
            self._has_room |= session.acknowledge(packet.packet_id)
        elif type(packet) is mqtt5.PingReqPacket:
            self._out.append(PINGRESP)
        elif type(packet) is mqtt5.SubscribePacket:
            wire.check_subscribe(packet, raw)
            self._subscribe(session, packet)
        elif type(packet) is mqtt5.UnsubscribePacket:
            wire.check_unsubscribe(packet)
            self._unsubscribe(session, packet)
        elif type(packet) is mqtt5.DisconnectPacket:
            self._disconnect(session, packet)
        else:
            raise WireError(
                DisconnectReasonCode.PROTOCOL_ERROR, f"{type(packet).__name__} is not what a client may send now"
            )

    def _connect(self, packet: mqtt5.ConnectPacket) -> None:
        try:
            key = self._key(packet)
            self._check_connect(packet)
            expiry_s = min(packet.session_expiry_interval, SESSION_EXPIRY_S_MAX)
            session, present = self._router.connect(
                self.identity,
                key,
                self,
                clean_start=packet.clean_start,
                expiry_s=expiry_s,
                receive_max=min(packet.receive_max, RECEIVE_MAX),
                will=packet.will,
            )
        except Refusal as refusal:
            self._refuse_connect(refusal.reason, str(refusal))
            return
        except TooManySessionsError:
            self._refuse_connect(ConnAckReasonCode.QUOTA_EXCEEDED, "too many sessions")
            return
        self._session = session
        self._asked_expiry_s = packet.session_expiry_interval
        if packet.max_packet_size is not None:
            self._packet_bytes_max = packet.max_packet_size
        keep_alive_s = packet.keep_alive
        bounded = 0 < keep_alive_s <= limits.KEEP_ALIVE_S_MAX
        if not bounded:
            keep_alive_s = limits.KEEP_ALIVE_S_MAX
        self._listen_for(KEEP_ALIVE_GRACE * keep_alive_s)
        self._out.append(
            mqtt5.ConnAckPacket(
                session_present=present,
                session_expiry_interval=expiry_s if expiry_s != packet.session_expiry_interval else None,
                server_keep_alive=None if bounded else keep_alive_s,
                receive_max=RECEIVE_MAX,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                max_packet_size=limits.PACKET_BYTES_MAX,
                shared_subscription_available=False,
            ).write()
        )

    def _key(self, packet: mqtt5.ConnectPacket) -> Key:
        if self.identity.role is Role.DEVICE:
            # Whatever the packet calls itself: so nobody can take over another's session.
            try:
                return Key(Role.DEVICE, device_id(self.identity.name))
            except BadIdError as error:
                raise Refusal(ConnAckReasonCode.NOT_AUTHORIZED, str(error)) from error
        if not 0 < len(packet.client_id) <= CLIENT_ID_CHARS_MAX or "\0" in packet.client_id:
            text = f"client id: expected 1 to {CLIENT_ID_CHARS_MAX} characters, got {len(packet.client_id)}"
            raise Refusal(ConnAckReasonCode.CLIENT_ID_NOT_VALID, text)
        try:
            name = device_id(packet.client_id)
        except BadIdError:
            return Key(Role.SERVER, packet.client_id)
        # The server puts a device out by taking its place, as on Mosquitto. It leaves nothing there that the device
        # could come back to: a session with the server's rights.
        if not packet.clean_start or packet.session_expiry_interval:
            text = "a device's place: expected a clean start and no session afterwards"
            raise Refusal(ConnAckReasonCode.NOT_AUTHORIZED, text)
        return Key(Role.DEVICE, name)

    def _check_connect(self, packet: mqtt5.ConnectPacket) -> None:
        if packet.authentication_method is not None:
            raise Refusal(ConnAckReasonCode.BAD_AUTHENTICATION_METHOD, "expected no authentication but TLS")
        if packet.authentication_data is not None:
            raise Refusal(ConnAckReasonCode.PROTOCOL_ERROR, "authentication data without a method")
        will = packet.will
        if will is None:
            return
        try:
            wire.check_will(will)
        except WireError as error:
            raise Refusal(_connack_reason(error.reason), str(error)) from error
        if not allowed(self.identity, Action.PUBLISH, will.topic, retain=will.retain):
            raise Refusal(ConnAckReasonCode.NOT_AUTHORIZED, f"will: not allowed on {shown(will.topic)}")

    def _publish(self, session: Session, packet: mqtt5.PublishPacket) -> None:
        wire.check_publish(packet)
        packet_id = packet.packet_id
        if packet_id is not None and self._owed >= RECEIVE_MAX:
            raise WireError(
                DisconnectReasonCode.RECEIVE_MAX_EXCEEDED, f"expected at most {RECEIVE_MAX} without an answer"
            )
        outcome = self._router.publish(self.identity, published(packet, session.key, self._heard_s))
        if packet_id is None:
            return
        after_s = outcome.acknowledge_after_s
        if after_s == 0.0:
            if outcome.reason == SUCCESS:
                self._out.append(b"\x40\x02" + packet_id.to_bytes(2, "big"))
            else:
                self._out.append(mqtt5.PubAckPacket(packet_id, reason_code=outcome.reason).write())
            return
        self._owed += 1
        if after_s is not None:
            answer = mqtt5.PubAckPacket(packet_id, reason_code=outcome.reason).write()
            timer = self._router.timer
            timer.call_at(timer.time() + after_s, lambda: self._answer(answer))

    def _answer(self, packet: bytes) -> None:
        if not self._over:
            self._owed -= 1
            self._socket.write(packet)

    def _subscribe(self, session: Session, packet: mqtt5.SubscribePacket) -> None:
        if len(packet.topic_filters) > FILTERS_AT_ONCE_MAX:
            raise WireError(
                DisconnectReasonCode.QUOTA_EXCEEDED, f"expected at most {FILTERS_AT_ONCE_MAX} filters in a packet"
            )
        codes = []
        for wanted in packet.topic_filters:
            subscription = Subscription(
                wanted.pattern,
                min(int(wanted.max_qos), 1),
                wanted.no_local,
                wanted.retain_as_published,
                packet.subscription_id,
            )
            codes.append(self._router.subscribe(session, subscription, int(wanted.retain_handling)))
        self._out.append(mqtt5.SubAckPacket(packet.packet_id, codes).write())

    def _unsubscribe(self, session: Session, packet: mqtt5.UnsubscribePacket) -> None:
        codes = [self._router.unsubscribe(session, pattern) for pattern in packet.patterns]
        self._out.append(mqtt5.UnsubAckPacket(packet.packet_id, codes).write())

    def _disconnect(self, session: Session, packet: mqtt5.DisconnectPacket) -> None:
        asked_s = packet.session_expiry_interval
        if asked_s is not None:
            if asked_s and not self._asked_expiry_s:
                raise WireError(DisconnectReasonCode.PROTOCOL_ERROR, "DISCONNECT: an expiry after all")
            session.expiry_s = min(asked_s, SESSION_EXPIRY_S_MAX)
        self._finish(with_will=packet.reason_code != DisconnectReasonCode.NORMAL_DISCONNECTION)
        self._socket.close()

    # Ends

    def _silent(self) -> None:
        """No client said nothing for so long: since we last heard something, perhaps."""
        due_s = self._heard_s + self._silence_s_max
        timer = self._router.timer
        if self._over:
            return
        if timer.time() < due_s:
            self._alarm = timer.call_at(due_s, self._silent)
        elif self._session is None:
            self._hang_up(f"no CONNECT in {CONNECT_WAIT_S:.0f} s")
        else:
            self._refuse(DisconnectReasonCode.KEEP_ALIVE_TIMEOUT, f"silent for {self._silence_s_max:.0f} s")
            self._flush()
            self._router.flush()

    def _listen_for(self, silence_s_max: float) -> None:
        self._silence_s_max = silence_s_max
        self._alarm.cancel()
        self._alarm = self._router.timer.call_at(self._heard_s + silence_s_max, self._silent)

    def _refuse_beginning(self, start: memoryview, error: BaseException) -> None:
        if not start or start[0] != wire.CONNECT_BYTE:
            self._hang_up(f"no CONNECT: {shown(error)}")
        elif str(error) in wire.OTHER_PROTOCOL:
            self._refuse_connect(ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "expected MQTT 5")
        else:
            self._refuse_connect(_connack_reason(wire.reason_of(error)), f"malformed CONNECT: {shown(error)}")

    def _refuse(self, reason: DisconnectReasonCode, text: str) -> None:
        """Say why and close; before CONNACK that is an answer to CONNECT, or nothing."""
        if self._over:
            return
        if self._session is None:
            self._refuse_connect(_connack_reason(reason), text)
            return
        self._out.append(mqtt5.DisconnectPacket(reason_code=reason).write())
        self._hang_up(text)

    def _refuse_connect(self, reason: ConnAckReasonCode, text: str) -> None:
        self._out.append(mqtt5.ConnAckPacket(reason_code=reason).write())
        self._hang_up(text)

    def _hang_up(self, text: str) -> None:
        self.ended = text
        self._flush()
        self._finish(with_will=True)
        self._socket.close()

    def _finish(self, *, with_will: bool) -> None:
        self._over = True
        self._alarm.cancel()
        session, self._session = self._session, None
        if session is not None:
            self._router.leave(session, self, with_will=with_will)

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._socket.write(data)


def _connack_reason(reason: DisconnectReasonCode) -> ConnAckReasonCode:
    match reason:
        case DisconnectReasonCode.PROTOCOL_ERROR:
            return ConnAckReasonCode.PROTOCOL_ERROR
        case DisconnectReasonCode.PACKET_TOO_LARGE:
            return ConnAckReasonCode.PACKET_TOO_LARGE
        case DisconnectReasonCode.TOPIC_NAME_INVALID:
            return ConnAckReasonCode.TOPIC_NAME_INVALID
        case DisconnectReasonCode.QOS_NOT_SUPPORTED:
            return ConnAckReasonCode.QUALITY_NOT_SUPPORTED
        case DisconnectReasonCode.SERVER_SHUTTING_DOWN:
            return ConnAckReasonCode.SERVER_UNAVAILABLE
        case _:
            return ConnAckReasonCode.MALFORMED_PACKET


def _is_codecs(error: BaseException) -> bool:
    """Whether it is about what came, and not a fault of ours: the codec's own ValueError, or its panic."""
    return isinstance(error, ValueError) or type(error).__module__ == "pyo3_runtime"
