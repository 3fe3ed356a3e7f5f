"""Where a webhook may go. Pure: a URL or an address in, yes or an error out.

An operator names the receiver, and the server must not be led to what only it can reach: plain HTTP goes to loopback
alone, and nothing to addresses of the link (clouds keep their instances' credentials there), to groups, or to
nowhere. Private networks are allowed, because that is where a site's receivers are. Names are resolved by the
adapter, which asks :func:`check_address` of every address and connects to the one it asked for.
"""

import ipaddress
import re
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from broker_config.text import shown

URL_CHARS_MAX: Final = 2_048
METADATA: Final = (
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("192.0.0.192/32"),
    ipaddress.ip_network("fd00:ec2::/32"),
    ipaddress.ip_network("168.63.129.16/32"),
)
"""Instance metadata of clouds that do not use the link-local range."""
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

_URL_CHARS: Final = re.compile(r"[!-~]+\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?\Z")

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class TargetError(ValueError):
    """Nothing may be sent there; the message says what is expected."""


class Target(NamedTuple):
    """A URL that was checked. ``host``: a name or an address, without brackets."""

    secure: bool
    host: str
    port: int
    path: str


def parse(url: str) -> Target:
    """Check a receiver's URL.

    Raises:
        TargetError: not https (or http to loopback), or with a user, a fragment or an address that is refused.
    """
    if len(url) > URL_CHARS_MAX or not _URL_CHARS.match(url):
        raise TargetError(f"expected at most {URL_CHARS_MAX} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetError(f"expected a URL: {shown(error)}") from error
    host = parts.hostname or ""
    if parts.scheme not in {"https", "http"}:
        raise TargetError("expected https://, or http:// to a loopback address")
    if "@" in parts.netloc or parts.fragment or not (host and port != 0):
        raise TargetError("expected a host and a path, without a user and without a fragment")
    secure = parts.scheme == "https"
    address = address_of(host)
    if address is not None:
        check_address(address, secure=secure)
    elif not _HOST.match(host):
        raise TargetError("expected a host's name or an address")
    elif not secure and host != "localhost":
        raise TargetError("expected https://: plain http goes to a loopback address alone")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), path)


def address_of(host: str) -> Address | None:
    """The address that *host* is, None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_address(address: Address, *, secure: bool) -> None:
    """Whether a connection may go there.

    Raises:
        TargetError: it may not.
    """
    real = _inner(address)
    if not secure and not real.is_loopback:
        raise TargetError("expected https://: plain http goes to a loopback address alone")
    metadata = any(real in network for network in METADATA)
    if real.is_link_local or real.is_multicast or real.is_unspecified or metadata:
        raise TargetError(f"{real} is an address that is never sent to")
    if real.is_reserved and not real.is_loopback:
        raise TargetError(f"{real} is a reserved address")


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, if it is of a kind that does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address
