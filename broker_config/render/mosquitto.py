"""Mosquitto 2's configuration and access list, rendered from the policy table and the limits.

Two listeners, each with its own certificate authority. On the devices' a client is who its certificate's common
name says, as user and as client id, so that nobody can take over another's session. On the server's the user is
the certificate's whole subject and client ids are free, so that several workers share one certificate.

Checked against Debian's 2.0.11. Never ``per_listener_settings``: 2.0.12 to 2.0.22 then drop offline queues. So the
access list is one for both listeners, and a ``user`` line counts on the devices' too: what keeps a device from
being called like the server is that the server's name is too long for a common name, which the device authority
sees to and Mosquitto does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final, TypeAlias

from broker_config import limits
from broker_config.ids import ContractError, SiteId, server_user
from broker_config.policy import OWN, RULES, Action, Role, Rule

CONFIG_FILE: Final = "mosquitto.conf"
ACL_FILE: Final = "acl"
BROKER_CERTIFICATE_FILE: Final = "broker.crt"
BROKER_KEY_FILE: Final = "broker.key"
DEVICE_CA_FILE: Final = "device-ca.crt"
SERVER_CA_FILE: Final = "server-ca.crt"
AUTOSAVE_S: Final = 300
"""With persistence: how often the whole state is written. Nothing rests on it."""
SESSION_EXPIRY_MAX: Final = "1h"
"""Whatever expiry a client asks for; an hour is the shortest that Mosquitto knows."""

Setting: TypeAlias = tuple[str, str | int]

_ACCESS: Final[Mapping[Action, str]] = {Action.PUBLISH: "write", Action.RECEIVE: "read"}


class BadSiteError(ContractError):
    """A value that cannot stand in a configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoSite:
    """One site's broker. Paths are as the broker shall see them: absolute, or relative to where it is started."""

    site: SiteId
    directory: str = "."
    """Where the rendered files, certificates and the key lie."""
    device_host: str | None = None
    """None: every address of the machine."""
    device_port: int = 8883
    server_host: str = "127.0.0.1"
    server_port: int = 8884
    device_connections_max: int = limits.CONNECTIONS_MAX
    crl_file: str | None = None
    """Revoked devices. Once it is out of date every device is refused."""
    persistence_directory: str | None = None
    """None: in memory only; nothing is lost by that, see the receipts."""
    user: str | None = None
    """Whom the broker becomes when it is started as root; None: ``mosquitto``."""
    log_dest: str = "stderr"
    """Not ``stdout``, which is buffered: lines then come minutes late."""
    pid_file: str | None = None


def render(site: MosquittoSite) -> dict[str, str]:
    """The text of each file, by its name in the site's directory.

    Raises:
        BadSiteError: a value with a line break or another control character in it, or no port number.
    """
    _check(site)
    return {CONFIG_FILE: _config(site), ACL_FILE: _acl(site.site)}


def _config(site: MosquittoSite) -> str:
    sections: tuple[tuple[str, tuple[Setting, ...]], ...] = (
        ("Rendered by fieldfleet from broker_config/policy.py and limits.py: change them, not this.", ()),
        ("Who", (("allow_anonymous", "false"), ("acl_file", f"{site.directory}/{ACL_FILE}"))),
        (
            "Bounds",
            (
                ("allow_zero_length_clientid", "false"),
                ("max_packet_size", limits.PACKET_BYTES_MAX),
                ("max_inflight_messages", limits.SERVER_INFLIGHT_MESSAGES_MAX),
                ("max_queued_messages", limits.QUEUED_MESSAGES_MAX),
                ("max_queued_bytes", limits.QUEUED_BYTES_MAX),
                ("max_keepalive", limits.KEEP_ALIVE_S_MAX),
                ("persistent_client_expiration", SESSION_EXPIRY_MAX),
            ),
        ),
        (
            "How",
            (
                ("retain_available", "true"),
                ("set_tcp_nodelay", "true"),
                ("sys_interval", 0),  # there is no $SYS then, for anybody
                *_persistence(site.persistence_directory),
                *_optional("user", site.user),
                *_optional("pid_file", site.pid_file),
                ("log_dest", site.log_dest),
                ("log_timestamp_format", "%Y-%m-%dT%H:%M:%S"),
            ),
        ),
        (
            "Devices: the certificate's common name is user and client id",
            (
                _listener(site.device_port, site.device_host),
                *_tls(site.directory, DEVICE_CA_FILE),
                *_optional("crlfile", site.crl_file),
                ("use_identity_as_username", "true"),
                ("use_username_as_clientid", "true"),
                ("max_qos", 1),
                ("max_connections", site.device_connections_max),
            ),
        ),
        (
            "The fleet server: the certificate's subject is the user",
            (
                _listener(site.server_port, site.server_host),
                *_tls(site.directory, SERVER_CA_FILE),
                ("use_subject_as_username", "true"),
                ("max_qos", 1),
                ("max_connections", limits.SERVER_CONNECTIONS_MAX),
            ),
        ),
    )
    return "\n".join(_section(title, settings) for title, settings in sections)


def _acl(site: SiteId) -> str:
    devices = (rule for rule in RULES if rule.role is Role.DEVICE)
    server = (rule for rule in RULES if rule.role is Role.SERVER)
    # Patterns count for every user, the server too; each grants it nothing that its own rules do not, but for
    # the topics of a device of its own name, which no device can have.
    return "\n".join(
        [
            "# Rendered by fieldfleet from broker_config/policy.py: change that, not this.",
            *_access_lines("pattern", devices),
            "",
            f"user {server_user(site)}",
            *_access_lines("topic", server),
            "",
        ]
    )


def _access_lines(keyword: str, rules: Iterable[Rule]) -> tuple[str, ...]:
    # Retained or not is nothing that an access list can tell; two rules may become the same line.
    lines = (f"{keyword} {_ACCESS[rule.action]} {rule.pattern.replace(OWN, '%u')}" for rule in rules)
    return tuple(dict.fromkeys(lines))


def _section(title: str, settings: Iterable[Setting]) -> str:
    return "".join([f"# {title}\n", *(f"{name} {value}\n" for name, value in settings)])


def _listener(port: int, host: str | None) -> Setting:
    return "listener", port if host is None else f"{port} {host}"


def _tls(directory: str, ca_file: str) -> tuple[Setting, ...]:
    return (
        ("cafile", f"{directory}/{ca_file}"),
        ("certfile", f"{directory}/{BROKER_CERTIFICATE_FILE}"),
        ("keyfile", f"{directory}/{BROKER_KEY_FILE}"),
        ("tls_version", "tlsv1.2"),  # the oldest
        ("require_certificate", "true"),
    )


def _persistence(directory: str | None) -> tuple[Setting, ...]:
    if directory is None:
        return (("persistence", "false"),)
    return (
        ("persistence", "true"),
        ("persistence_location", directory),
        ("autosave_interval", AUTOSAVE_S),
    )


def _optional(name: str, value: str | None) -> tuple[Setting, ...]:
    return () if value is None else ((name, value),)


def _check(site: MosquittoSite) -> None:
    for field in fields(site):
        value = getattr(site, field.name)
        if isinstance(value, str) and (not value.strip() or not value.isprintable()):
            raise BadSiteError(f"{field.name}: expected printable text on one line, got {value[:80]!r}")
    for name, port in (("device_port", site.device_port), ("server_port", site.server_port)):
        if not 0 < port < 65_536:
            raise BadSiteError(f"{name}: expected 1 to 65535, got {port}")
