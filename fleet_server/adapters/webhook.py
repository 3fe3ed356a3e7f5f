"""Sends a happening to a receiver over HTTP: TLS verified, no redirect followed, every wait and every byte bounded.

The name is resolved here, each address is asked of ``outbound.targets``, and the connection goes to an address that
was asked for: a name that answers differently the second time leads nowhere else.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from broker_config.text import shown
from fleet_server.outbound import targets
from fleet_server.outbound.events import CONTENT_TYPE, cloud_event, message_id
from fleet_server.outbound.happenings import Happening
from fleet_server.outbound.retries import Attempt
from fleet_server.outbound.signing import headers
from fleet_server.outbound.subscriptions import Subscription
from fleet_server.outbound.targets import Address, Target, TargetError

ATTEMPT_S_MAX: Final = 20.0
CONNECT_S_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 4_096
"""Read of an answer, so that its connection can be used again; what is longer is cut off with its connection."""
ERROR_BYTES_MAX: Final = 200
CONCURRENT_MAX: Final = 4
"""Attempts at one receiver at once, begun in the order of ids."""
ADDRESSES_MAX: Final = 3
"""Of one name, tried one after the other."""
CONNECTIONS_MAX: Final = 200
USER_AGENT: Final = "fieldfleet"


class WebhookSender:
    """A :class:`fleet_server.outbound.sending.Sender`, for one loop."""

    rows_max = 1
    concurrent_max = CONCURRENT_MAX
    sweeps = False

    def __init__(self, *, site: str, security: ssl.SSLContext, seconds_max: float = ATTEMPT_S_MAX) -> None:
        self._site = site
        self._seconds_max = seconds_max
        self._client = httpx.AsyncClient(
            verify=security,
            follow_redirects=False,
            trust_env=False,  # a proxy would choose the address instead of us
            # a receiver has nothing to remember with us, and another at its address nothing to learn from it
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(seconds_max, connect=min(CONNECT_S_MAX, seconds_max)),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX // 4),
            headers={"User-Agent": USER_AGENT, "Content-Type": CONTENT_TYPE, "Accept": "*/*"},
        )

    async def aclose(self) -> None:
        """End every connection."""
        await self._client.aclose()

    async def send(self, subscription: Subscription, happenings: Sequence[Happening], *, now_ms: int) -> Attempt:
        (happening,) = happenings
        body = cloud_event(happening, self._site)
        signed = headers(subscription.secret, message_id(happening), at_s=now_ms // 1000, body=body)
        try:
            async with asyncio.timeout(self._seconds_max):
                target = targets.parse(subscription.url)
                return await self._to_one_of(target, await resolved(target), body, dict(signed))
        except TimeoutError:
            return Attempt(0, f"no answer within {self._seconds_max:g} s")
        except (TargetError, OSError, httpx.HTTPError, UnicodeError) as error:
            return Attempt(0, f"{type(error).__name__}: {shown(error)}")

    async def _to_one_of(
        self, target: Target, addresses: Sequence[Address], body: bytes, signed: dict[str, str]
    ) -> Attempt:
        for address in addresses[:-1]:
            try:
                return await self._to(target, address, body, signed)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent
        return await self._to(target, addresses[-1], body, signed)

    async def _to(self, target: Target, address: Address, body: bytes, signed: dict[str, str]) -> Attempt:
        scheme = "https" if target.secure else "http"
        request = self._client.build_request(
            "POST",
            f"{scheme}://{_bracketed(str(address))}:{target.port}{target.path}",
            content=body,
            headers=signed | {"Host": f"{_bracketed(target.host)}:{target.port}"},
            # the certificate must be the name's, not the address's
            extensions={"sni_hostname": target.host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            text = await _beginning(answer)
        finally:
            await answer.aclose()
        said = "" if answer.is_success else shown(text[:ERROR_BYTES_MAX])
        return Attempt(answer.status_code, said, answer.headers.get("Retry-After", ""))


async def resolved(target: Target) -> list[Address]:
    """Where *target* is, as far as anything may be sent there.

    Raises:
        TargetError: nowhere that may be sent to.
        OSError: the name is not known.
    """
    known = targets.address_of(target.host)
    if known is not None:
        targets.check_address(known, secure=target.secure)
        return [known]
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    for address in addresses:  # one that is refused refuses the name: whoever gave it that means no good
        targets.check_address(address, secure=target.secure)
    return addresses[:ADDRESSES_MAX]


async def _beginning(answer: httpx.Response) -> bytes:
    text = b""
    async for part in answer.aiter_raw():
        text += part
        if len(text) > ANSWER_BYTES_MAX:
            break
    return text


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
