"""What a site's directory holds: decided here, written by ``adapters.site_directory``.

    site.toml                 the site's id, names and ports
    ca/                       the authorities; the key of the devices' root belongs offline
    broker/                   what the broker's machine needs
    server/                   what the fleet server's machine needs
    devices/ID/               what one device needs
    proxy/                    what browsers see of it, if `make-proxy-certificate` made that

Each of the last four can be copied to where it runs: paths in its files are relative to them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from broker_config import device_classes, signing
from broker_config.ids import ContractError, DeviceId, SiteId
from broker_config.render import mosquitto
from broker_config.signing import CHANGE_SIGNERS, ED25519, Roots, Signer, Thresholds
from broker_config.text import shown
from fleet_server import config
from fleet_server.access import audit, ca, keys, notes
from fleet_server.access.signing import ONLINE_KINDS

SITE_FILE: Final = "site.toml"
SERVER_CONFIG: Final = "server/fleet-server.toml"
SERVER_CONFIG_DIRECTORY: Final = "server"
TOKEN_FILE: Final = "server/api-token"  # noqa: S105 - a path
MASTER_KEY_FILE: Final = "server/master.key"
AUDIT_KEY: Final = "audit.key"
AUDIT_PUBLIC_KEY: Final = "audit.pub"
SIGNING_KEY_FILE: Final = "server/signing.key"
SIGNERS_FILE: Final = "server/signers.json"
BENCHES_DIRECTORY: Final = "server/benches"
CRL_FILE: Final = "device-ca.crl"
RELEASES_DIRECTORY: Final = "server/releases"
RELEASES_KEY: Final = "server/releases.key"
PID_FILE: Final = "mosquitto.pid"
BROKER_DIRECTORY: Final = "broker"
BROKER_CONFIG: Final = mosquitto.CONFIG_FILE
DEVICE_ROOT: Final = "ca/device-root"
SIGNERS_ROOT_KEY: Final = "ca/signers-root.key"
"""Changes whom devices obey; belongs offline."""
DEVICE_CA: Final = "ca/device-ca"
SERVER_CA: Final = "ca/server-ca"
PROXY_CERTIFICATE: Final = "proxy/site.crt"
PROXY_KEY: Final = "proxy/site.key"
"""What browsers see; made by a command of its own, because a bureau may have its own."""
AGENT_CONFIG: Final = "agent.toml"

SITE_ID_BYTES: Final = 32
DEVICE_PORT: Final = 8883
SERVER_PORT: Final = 8884
HOSTS_MAX: Final = 16
ENROLMENT_PORT: Final = 8471
LOOPBACK: Final = "127.0.0.1"
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - devices come from anywhere
HOST_ALWAYS: Final = ("localhost", LOOPBACK)
"""The broker's certificate names these too, for a server and tools on the broker's own machine."""

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?\Z|::1\Z")

Hosts: TypeAlias = Annotated[tuple[config.Host, ...], Meta(min_length=1, max_length=HOSTS_MAX)]


class SiteError(ContractError):
    """No such site can be made, or it is not one; nothing was written."""


class Site(Struct, frozen=True):
    """All of ``site.toml``. ``hosts``: names or addresses of the broker, the first for devices to use.

    ``enrolment_port``: where devices get their certificates; None: only ``add-device`` makes any, the server has no
    authority, and nothing is ever revoked.
    """

    site_id: config.SiteIdField
    hosts: Hosts
    device_port: config.Port
    server_port: config.Port
    api_port: config.Port
    enrolment_port: config.Port | None = None


class File(NamedTuple):
    """A file of a site; a secret one is for its owner only."""

    content: bytes
    secret: bool = False


Files: TypeAlias = Mapping[str, File]
"""Path below the site's (or the device's) directory -> file."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a new site is made from, random in all but tests."""

    device_root: ca.Issued
    device_ca: ca.Issued
    server_ca: ca.Issued
    master: keys.MasterKey
    token: str = field(repr=False)
    audit_seed: bytes = field(repr=False)
    signing_key_pem: bytes = field(repr=False)
    signing_public: bytes
    """Ed25519, 32 bytes."""
    signers_root_pem: bytes = field(repr=False)
    signers_root_public: bytes


def new_site(
    site_id: SiteId,
    *,
    hosts: tuple[str, ...],
    device_port: int,
    server_port: int,
    api_port: int,
    enrolment_port: int | None,
) -> Site:
    """Check a site's names and ports.

    Raises:
        SiteError: a host that is neither a name nor an address, none or too many, or a port used twice.
    """
    bad = [host for host in hosts if not _HOST.match(host)]
    if bad:
        raise SiteError(f"host: expected a name or an address, got {', '.join(repr(shown(host)) for host in bad)}")
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise SiteError(f"hosts: expected 1 to {HOSTS_MAX}, got {len(hosts)}")
    ports = [device_port, server_port, api_port, *([] if enrolment_port is None else [enrolment_port])]
    if len(set(ports)) < len(ports) or not all(1 <= port <= 65_535 for port in ports):
        raise SiteError(f"ports: expected different ones of 1 to 65535, got {', '.join(map(str, ports))}")
    return Site(site_id, hosts, device_port, server_port, api_port, enrolment_port)


def site_files(site: Site, secrets: Secrets, *, broker_user: str | None, now: datetime) -> Files:
    """Every file of a new site, without devices.

    *broker_user*: whom the broker becomes if root starts it, and so must be able to read its files; None is the
    broker's own default.
    """
    server = ca.issue_server(secrets.server_ca, site.site_id, now=now)
    hosts = tuple(dict.fromkeys((*site.hosts, *HOST_ALWAYS)))
    broker = ca.issue_broker(secrets.server_ca, hosts, now=now)
    device_ca, server_ca = File(secrets.device_ca.certificate_pem), File(secrets.server_ca.certificate_pem)
    device_chain = File(secrets.device_ca.certificate_pem + secrets.device_root.certificate_pem)
    return {
        SITE_FILE: File(_site_toml(site).encode()),
        f"{DEVICE_ROOT}.crt": File(secrets.device_root.certificate_pem),
        f"{DEVICE_ROOT}.key": File(secrets.device_root.key_pem, secret=True),
        f"{DEVICE_CA}.crt": device_ca,
        f"{DEVICE_CA}.key": File(secrets.device_ca.key_pem, secret=True),
        f"{SERVER_CA}.crt": server_ca,
        f"{SERVER_CA}.key": File(secrets.server_ca.key_pem, secret=True),
        # Mosquitto from 2.0.17 on complains of an access list that the world can read, and means to refuse it
        **{
            f"broker/{name}": File(text.encode(), secret=name == mosquitto.ACL_FILE)
            for name, text in _broker_files(site, broker_user).items()
        },
        "broker/broker.crt": File(broker.certificate_pem),
        "broker/broker.key": File(broker.key_pem, secret=True),
        "broker/device-ca.crt": device_chain,
        "broker/server-ca.crt": server_ca,
        SERVER_CONFIG: File(_server_toml(site).encode()),
        "server/server.crt": File(server.certificate_pem),
        "server/server.key": File(server.key_pem, secret=True),
        "server/server-ca.crt": server_ca,
        MASTER_KEY_FILE: File(secrets.master.text().encode(), secret=True),
        SIGNING_KEY_FILE: File(secrets.signing_key_pem, secret=True),
        SIGNERS_ROOT_KEY: File(secrets.signers_root_pem, secret=True),
        SIGNERS_FILE: File(signing.encode(_signers(site, secrets)) + b"\n"),
        TOKEN_FILE: File(f"{secrets.token}\n".encode(), secret=True),
        **{f"server/{name}": file for name, file in audit_files(site.site_id, secrets.audit_seed).items()},
        **({} if site.enrolment_port is None else _enrolment_files(secrets, hosts, device_chain, now)),
    }


def audit_files(site_id: SiteId, seed: bytes) -> Files:
    """The key that signs the audit log, and its public half for whoever is to check that."""
    signer = notes.Signer(audit.key_name(site_id), seed)
    return {
        AUDIT_KEY: File(signer.text().encode(), secret=True),
        AUDIT_PUBLIC_KEY: File(f"{signer.verifier.text()}\n".encode()),
    }


def _enrolment_files(secrets: Secrets, hosts: tuple[str, ...], device_chain: File, now: datetime) -> Files:
    """What a server needs that signs devices itself, and can have the broker refuse them."""
    listener = ca.issue_broker(secrets.server_ca, hosts, now=now)
    root_crl = ca.revocation_list(secrets.device_root, [], now=now, days=ca.ROOT_CRL_DAYS)
    return {
        f"broker/{CRL_FILE}": File(ca.revocation_list(secrets.device_ca, [], now=now) + root_crl),
        "server/device-ca.crt": device_chain,
        "server/device-ca.key": File(secrets.device_ca.key_pem, secret=True),
        "server/device-root.crl": File(root_crl),
        "server/enrolment.crt": File(listener.certificate_pem),
        "server/enrolment.key": File(listener.key_pem, secret=True),
    }


def device_files(
    site: Site,
    device: DeviceId,
    *,
    device_class: str,
    device_ca: ca.Ca,
    server_ca_pem: bytes,
    master: keys.MasterKey,
    signers_json: bytes,
    now: datetime,
) -> Files:
    """Every file that *device* needs.

    Raises:
        UnknownClassError: no such device class.
    """
    device_classes.load(device_class)
    issued = ca.issue_device(device_ca, device, now=now)
    return {
        AGENT_CONFIG: File(_agent_toml(site, device, device_class).encode()),
        "device.crt": File(ca.with_issuer(issued, device_ca.certificate).certificate_pem),
        "device.key": File(issued.key_pem, secret=True),
        "server-ca.crt": File(server_ca_pem),
        "signers.json": File(signers_json),
        "mac.json": File(keys.device_keys_json(master, device), secret=True),
    }


def _signers(site: Site, secrets: Secrets) -> Roots:
    """Whom a device obeys: the server's signer. What is hazardous needs a second one, which whoever holds the other
    key adds; that one orders nothing.
    """
    online = tuple(sorted(kind.value for kind in ONLINE_KINDS))
    keys_of = ((secrets.signing_public, online), (secrets.signers_root_public, (CHANGE_SIGNERS,)))
    signers = tuple(Signer(signing.key_id(ED25519, public), ED25519, public, kinds) for public, kinds in keys_of)
    return Roots(1, 1, site.site_id, signers, Thresholds(signers=1))


def _broker_files(site: Site, user: str | None) -> Mapping[str, str]:
    # Paths are relative to where the broker is started, which is its own directory.
    rendered = mosquitto.MosquittoSite(
        site=site.site_id,
        device_host=LOOPBACK if site.hosts == (HOST_ALWAYS[0],) else None,
        device_port=site.device_port,
        server_host=LOOPBACK,
        server_port=site.server_port,
        user=user,
        # an empty list from the first day on: Mosquitto looks for one only if it had one when it started
        crl_file=CRL_FILE if site.enrolment_port is not None else None,
        pid_file=PID_FILE if site.enrolment_port is not None else None,
    )
    return mosquitto.render(rendered)


def _site_toml(site: Site) -> str:
    return (
        f"""\
# A fieldfleet site, as `fleet-server init` made it.
site_id = {_toml(site.site_id)}
# Names or addresses of the broker; devices use the first.
hosts = [{", ".join(map(_toml, site.hosts))}]
device_port = {site.device_port}
server_port = {site.server_port}
api_port = {site.api_port}
{f"enrolment_port = {site.enrolment_port}" if site.enrolment_port is not None else ""}
""".rstrip()
        + "\n"
    )


def _server_toml(site: Site) -> str:
    return f"""\
site_id = {_toml(site.site_id)}
state_dir = "state"
shards = "00-ff"

[broker]
# The broker's listener for servers.
host = {_toml(LOOPBACK)}
port = {site.server_port}
ca_file = "server-ca.crt"
cert_file = "server.crt"
key_file = "server.key"
{_RELOAD if site.enrolment_port is not None else ""}
[mac]
master_key_file = "master.key"

[signer]
# Where `fleet-server signer` is asked; the key and the counter are the signer's alone.
socket_file = "state/signer.sock"
key_file = "signing.key"
counter_file = "state/signer.counter"

[api]
port = {site.api_port}
token_file = "api-token"
{_enrolment_toml(site) if site.enrolment_port is not None else ""}{audit_table()}""".replace("\n\n\n", "\n\n")


def audit_table() -> str:
    """What the server's configuration says of the audit log."""
    return f"""
[audit]
key_file = {_toml(AUDIT_KEY)}
"""


def releases_table() -> str:
    """What the server's configuration says of releases, once somebody may release."""
    return f"""
[releases]
# What devices may install; and what the server signs with that this is the newest.
directory = {_toml(RELEASES_DIRECTORY.rpartition("/")[2])}
key_file = {_toml(RELEASES_KEY.rpartition("/")[2])}
"""


_RELOAD: Final = f"""\
# How the broker is told that the list of revoked devices is another: SIGHUP to it, or `reload_command = [...]`.
reload_pid_file = "../broker/{PID_FILE}"
"""


def _enrolment_toml(site: Site) -> str:
    return f"""
[device_ca]
# The intermediate, then the root that vouches for it; the root's key stays offline.
cert_file = "device-ca.crt"
key_file = "device-ca.key"
root_crl_file = "device-root.crl"
# Where the broker reads whom to refuse.
crl_file = "../broker/{CRL_FILE}"
# What `add-device` made: so that it can be revoked, too.
benches_dir = "{BENCHES_DIRECTORY.rpartition("/")[2]}"

[enrolment]
host = {_toml(LOOPBACK if site.hosts == (HOST_ALWAYS[0],) else ANYWHERE)}
port = {site.enrolment_port}
cert_file = "enrolment.crt"
key_file = "enrolment.key"
# What devices are told: who vouches for the servers, whose signatures count, and where the broker is.
server_ca_file = "server-ca.crt"
signers_file = "signers.json"
broker_host = {_toml(site.hosts[0])}
broker_port = {site.device_port}

[evidence]
# Files of devices: on their way, and kept under their SHA-256. Receipts for them are signed by the signer.
directory = "state/evidence"
"""


def _agent_toml(site: Site, device: DeviceId, device_class: str) -> str:
    return f"""\
device = {_toml(device)}
device_class = {_toml(device_class)}
profile = {_toml(device_class)}
state_dir = "state"

[broker]
host = {_toml(site.hosts[0])}
port = {site.device_port}
ca_file = "server-ca.crt"
cert_file = "device.crt"
key_file = "device.key"

[orders]
signers_file = "signers.json"

[receipts]
mac_file = "mac.json"
"""


def _toml(text: str) -> str:
    # A basic string of TOML escapes as JSON does; every name here is ASCII.
    return json.dumps(text)
