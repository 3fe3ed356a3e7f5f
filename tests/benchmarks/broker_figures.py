"""What a broker's process costs, and what the broker says that it dropped."""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mqtt5

from broker_config import limits
from broker_config.ids import server_client_id
from broker_config.policy import server
from broker_config.render import mosquitto as rendering
from fleet_server.access import ca
from fleet_server.adapters.mqtt import QOS, Link, LinkSettings, connect, security
from tests.faults.tap import TAP_SITE
from tests.servers import HOST, Mosquitto

MIB = limits.KIB**2


@dataclass
class Cpu:
    """Seconds of the processor: of the broker, and of this process, which is the server."""

    broker: Mosquitto
    broker_s: float = 0.0
    server_s: float = 0.0

    def begin(self) -> None:
        """From now on."""
        self.broker_s, self.server_s = self._now()

    def end(self) -> None:
        """Until now."""
        broker_s, server_s = self._now()
        self.broker_s, self.server_s = broker_s - self.broker_s, server_s - self.server_s

    def _now(self) -> tuple[float, float]:
        fields = Path(f"/proc/{self.broker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), time.process_time()

    def shown(self, size: int) -> str:
        """Of so many bytes."""
        mib = size / MIB
        return f"CPU ms/MiB: broker {1000 * self.broker_s / mib:.1f}, server {1000 * self.server_s / mib:.1f}"


class Dropped:
    """The broker's own count, which the product's rendering does not have told."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._client_id = f"{server_client_id(TAP_SITE, work='evidence')}-d"
        self.said: list[int] = []

    def turn_on(self) -> None:
        """Start the broker again, with its figures told every second, and to nobody but the one who asks here."""
        broker = self._broker
        broker.stop()
        config, acl = (broker.directory / name for name in (rendering.CONFIG_FILE, rendering.ACL_FILE))
        text = config.read_text(encoding="utf-8")
        assert "sys_interval 0" in text
        config.write_text(text.replace("sys_interval 0", "sys_interval 1"), encoding="utf-8")
        user = f"user {server(TAP_SITE).name}\ntopic read $SYS/#\n\n"
        acl.write_text(user + acl.read_text(encoding="utf-8"), encoding="utf-8")
        broker.start()

    async def listen(self) -> None:
        """Ask, until the broker ends."""
        issued = ca.issue_server(self._broker.server_ca, TAP_SITE, now=datetime.now(UTC))
        paths = self._broker.credentials("_figures", issued)
        context = security(paths.ca, paths.certificate, paths.key)
        settings = LinkSettings(HOST, self._broker.server_port, self._client_id, 30, context, session_expiry_s=0)
        filters = [mqtt5.TopicFilter("$SYS/broker/publish/messages/dropped", max_qos=QOS)]
        await connect(settings, filters=filters, will=None, clean_start=True, on_packets=self._take)

    def _take(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))
        self.said += [int(bytes(packet.payload or b"0")) for packet in packets]
