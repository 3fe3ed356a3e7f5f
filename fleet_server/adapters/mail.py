"""Sends letters through a mail server, in a thread, because the standard library's client blocks."""

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final

from broker_config.text import shown
from fleet_server.config import Tls
from fleet_server.outbound.happenings import Happening
from fleet_server.outbound.letters import LETTER_HAPPENINGS_MAX, letter
from fleet_server.outbound.retries import Attempt
from fleet_server.outbound.subscriptions import Subscription

SMTP_S_MAX: Final = 30.0
SENT: Final = 250


@dataclass(frozen=True, slots=True)
class MailSettings:
    """``user`` empty: without a login."""

    host: str
    port: int
    tls: Tls
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)


class MailSender:
    """A :class:`fleet_server.outbound.sending.Sender`."""

    rows_max = LETTER_HAPPENINGS_MAX
    concurrent_max = 1
    sweeps = True

    def __init__(self, settings: MailSettings, *, site: str, security: ssl.SSLContext) -> None:
        self._settings = settings
        self._site = site
        self._security = security

    async def send(self, _subscription: Subscription, happenings: Sequence[Happening], *, now_ms: int) -> Attempt:  # noqa: ARG002 - see the port
        settings = self._settings
        written = letter(happenings, site=self._site, sender=settings.sender, recipients=settings.recipients)
        try:
            refused = await asyncio.to_thread(self._hand_over, written)
        except smtplib.SMTPResponseException as error:
            return Attempt(error.smtp_code, shown(error.smtp_error))
        except smtplib.SMTPRecipientsRefused as error:
            return _refusal(error.recipients)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return Attempt(0, f"{type(error).__name__}: {shown(error)}")
        # who was taken has it now; to try again for who was not would send it to them twice
        return Attempt(SENT, shown(f"refused: {', '.join(sorted(refused))}") if refused else "")

    async def aclose(self) -> None:
        """Nothing is held between letters."""

    def _hand_over(self, written: EmailMessage) -> dict[str, tuple[int, bytes]]:
        settings = self._settings
        client = _implicit(self._security) if settings.tls is Tls.TLS else smtplib.SMTP
        with client(settings.host, settings.port, timeout=SMTP_S_MAX) as server:
            if settings.tls is Tls.STARTTLS:
                server.starttls(context=self._security)
            if settings.user:
                server.login(settings.user, settings.password)
            return server.send_message(written, from_addr=settings.sender, to_addrs=list(settings.recipients))


def _implicit(security: ssl.SSLContext) -> Callable[..., smtplib.SMTP]:
    def client(host: str, port: int, *, timeout: float) -> smtplib.SMTP:
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=security)

    return client


def _refusal(recipients: dict[str, tuple[int, bytes]]) -> Attempt:
    code, why = next(iter(recipients.values()))
    return Attempt(code, shown(why))
