"""The broker as who guards it uses it: the port :class:`fleet_server.access.revocation.BrokerDoor`.

A session is ended by taking its place: on the server's own listener a client may call itself what it likes.
"""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import mqtt5

from broker_config import messages, topics
from broker_config.ids import DeviceId, Hex16, device_id
from broker_config.messages import BadMessageError, Birth, Will
from broker_config.text import shown
from broker_config.topics import Up
from fleet_server.access import enrolment
from fleet_server.access.ca import Issued
from fleet_server.access.revocation import BrokerError

WAIT_S: Final = 3.0
PACKET_BYTES_MAX: Final = 65_536
PACKETS_MAX: Final = 100
"""That are not the answer, before it."""
KEEP_ALIVE_S: Final = 10
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
BROKERS: Final = (b"mosquitto", b"broker_config.embedded")
"""Whom a pid file may name: a number that is left over may be anybody's by now."""


P = TypeVar("P", mqtt5.ConnAckPacket, mqtt5.SubAckPacket, mqtt5.PubAckPacket, mqtt5.PingRespPacket)


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where both listeners are, and how the broker is told to read *crl_file* again: by a command, else by SIGHUP."""

    host: str
    server_port: int
    device_port: int
    ca_file: Path
    cert_file: Path
    key_file: Path
    reload_command: tuple[str, ...]
    reload_pid_file: Path | None
    crl_file: Path


class Door:
    """See the port."""

    def __init__(self, settings: DoorSettings) -> None:
        self._settings = settings

    def reload(self) -> None:
        """See the port."""
        settings = self._settings
        if settings.reload_command:
            _run(settings.reload_command)
        elif settings.reload_pid_file is not None:
            try:
                telling = _telling(settings.reload_pid_file, settings.crl_file)
                os.kill(_pid(settings.reload_pid_file), signal.SIGHUP)
            except OSError as error:
                raise BrokerError(f"{settings.reload_pid_file}: {shown(error)}") from error
            with contextlib.suppress(OSError):  # it is told; that nobody knows costs once more
                self._told_file.write_text(telling, encoding="ascii")
        else:
            raise BrokerError("reload the broker by hand; next time: reload_pid_file or reload_command in [broker]")

    def was_told(self) -> bool:
        """See the port. What a command did, nobody knows."""
        pid_file = self._settings.reload_pid_file
        if self._settings.reload_command or pid_file is None:
            return False
        try:
            return self._told_file.read_text(encoding="ascii") == _telling(pid_file, self._settings.crl_file)
        except (OSError, ValueError, BrokerError):
            return False

    @property
    def _told_file(self) -> Path:
        return self._settings.crl_file.with_name(f"{self._settings.crl_file.name}.told")

    def lets_in(self, identity: Issued) -> bool:
        """See the port."""
        with tempfile.TemporaryDirectory(prefix="fieldfleet-") as directory:
            file = Path(directory) / "identity.pem"
            file.touch(mode=0o600)
            file.write_bytes(identity.key_pem + identity.certificate_pem)
            security = ssl.create_default_context(cafile=str(self._settings.ca_file))
            security.load_cert_chain(file)
        try:
            with self._connected(self._settings.device_port, security) as connection:
                connection.sendall(mqtt5.ConnectPacket(enrolment.CANARY, clean_start=True).write())
                # whatever the broker says of the name: that it says anything is that TLS let it in
                return bool(connection.recv(PACKET_BYTES_MAX))
        except (ssl.SSLError, ConnectionError):
            return False
        except TimeoutError as error:
            raise BrokerError(f"the broker does not answer within {WAIT_S:g} s") from error

    def end(self, device: str) -> None:
        """See the port."""
        settings = self._settings
        try:
            security = ssl.create_default_context(cafile=str(settings.ca_file))
            security.load_cert_chain(settings.cert_file, settings.key_file)
            with self._connected(settings.server_port, security) as connection:
                _put_out(_Talk(connection), device_id(device))
        except OSError as error:  # ssl.SSLError is one, and TimeoutError
            raise BrokerError(f"the broker's listener for servers: {shown(error)}") from error

    @contextlib.contextmanager
    def _connected(self, port: int, security: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        try:
            plain = socket.create_connection((self._settings.host, port), timeout=WAIT_S)
        except OSError as error:
            raise BrokerError(f"no broker at {self._settings.host}:{port}: {shown(error)}") from error
        with plain, security.wrap_socket(plain, server_hostname=self._settings.host) as secured:
            yield secured


class _Talk:
    """MQTT, one question at a time. Raises OSError: the connection ended, or nothing came in time."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._buffer = b""
        self.heard: list[mqtt5.PublishPacket] = []

    def say(self, packet: bytes) -> None:
        """Nothing comes back."""
        self._connection.sendall(packet)

    def ask(self, packet: bytes, kind: type[P]) -> P:
        """What comes back, of *kind*."""
        self.say(packet)
        for _ in range(PACKETS_MAX):
            answer = self._next()
            if isinstance(answer, kind):
                return answer
            if isinstance(answer, mqtt5.PublishPacket):
                self.heard.append(answer)
        raise BrokerError("the broker answers something else")

    def _next(self) -> mqtt5.Packet:
        while True:
            with contextlib.suppress(IndexError):
                packet, size = mqtt5.read(memoryview(self._buffer))
                self._buffer = self._buffer[size:]
                return packet
            data = self._connection.recv(PACKET_BYTES_MAX)
            if not data:
                raise BrokerError("the broker ended the connection")
            self._buffer += data


def _put_out(talk: _Talk, device: DeviceId) -> None:
    """Take the device's place, say in it that the device is gone, and leave it empty."""
    topic = topics.up(device, Up.STATUS)
    greeted = talk.ask(
        mqtt5.ConnectPacket(device, clean_start=True, keep_alive=KEEP_ALIVE_S).write(), mqtt5.ConnAckPacket
    )
    if greeted.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
        raise BrokerError(f"the broker refused: {greeted.reason_code!r}")
    wanted = mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS.AT_MOST_ONCE)
    talk.ask(mqtt5.SubscribePacket(1, [wanted]).write(), mqtt5.SubAckPacket)
    talk.ask(mqtt5.PingReqPacket().write(), mqtt5.PingRespPacket)  # what is retained has come by then
    epoch = _epoch(talk.heard)
    if epoch is not None:
        # a broker may wait for as long as the will's delay, or forget the will, when a session is taken over
        _publish(talk, topic, messages.encode(Will(1, epoch, "lost")))
    _publish(talk, topic, b"", retain=True)
    talk.say(mqtt5.DisconnectPacket().write())


def _epoch(heard: list[mqtt5.PublishPacket]) -> Hex16 | None:
    """Of the connection that a retained birth is of; None: there is none."""
    for packet in heard:
        with contextlib.suppress(BadMessageError):
            status = messages.decode_status(packet.payload)
            if isinstance(status, Birth):
                return Hex16(status.epoch)
    return None


def _publish(talk: _Talk, topic: str, payload: bytes, *, retain: bool = False) -> None:
    packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain, packet_id=1)
    talk.ask(packet.write(), mqtt5.PubAckPacket)  # that nobody listens is no failure


def _run(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the configuration's own
            command, check=False, capture_output=True, timeout=WAIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"reload_command: {shown(error)}") from error
    if done.returncode:
        raise BrokerError(f"reload_command: it ended with {done.returncode}: {shown(done.stderr)}")


def _pid(pid_file: Path) -> int:
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError) as error:
        raise BrokerError(f"{pid_file}: expected the pid of a running broker: {shown(error)}") from error
    if not any(name in command for name in BROKERS):
        raise BrokerError(f"{pid_file}: process {pid} is no broker; is the broker running?")
    return pid


def _telling(pid_file: Path, crl_file: Path) -> str:
    """What names the broker's process for ever (its number, when it began, in which boot), and the list as it is.
    Raises BrokerError, OSError.
    """
    pid = _pid(pid_file)
    began = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    boot = BOOT_ID.read_text(encoding="ascii").strip()
    return f"{boot} {pid} {began} {hashlib.sha256(crl_file.read_bytes()).hexdigest()}\n"
