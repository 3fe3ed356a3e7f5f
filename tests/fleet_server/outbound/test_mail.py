"""Mail goes through a real mail server: protected, in digests, at least once, and read as it was written."""

import email
import email.policy
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from sqlalchemy import Engine

from fleet_server.access import ca
from fleet_server.adapters.mail import MailSender, MailSettings
from fleet_server.config import Tls
from fleet_server.outbound.happenings import Kind, News, Severity
from fleet_server.outbound.retries import State
from fleet_server.outbound.subscriptions import MAIL_ID, Choice, Sort
from tests.fleet_server.outbound.rig import SITE, Rig, delivering
from tests.servers import HOST, free_port

USER: Final = "fleet"
PASSWORD: Final = "correct horse"
RECIPIENTS: Final = ("duty@example.org", "chief@example.org")
DIGEST_MS: Final = 60_000


@dataclass(slots=True)
class Mailbox:
    """What a mail server took; ``refusals``: what it answers instead, in turn; ``unknown``: who is nobody there."""

    letters: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    protected: list[bool] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:  # noqa: N802
        if address in self.unknown:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        with self.lock:
            if self.refusals:
                return self.refusals.pop(0)
            assert isinstance(envelope.content, bytes)
            letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(letter, EmailMessage)
            self.letters.append(letter)
            self.envelopes.append(envelope)
            self.protected.append(session.ssl is not None)
        return "250 OK"


def _authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, given: Any) -> AuthResult:
    right = isinstance(given, LoginPassword) and (given.login, given.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=False)


@pytest.fixture(scope="module")
def authority() -> ca.Issued:
    return ca.new_ca("mail", now=datetime.now(UTC))


def _context(directory: Path, authority: ca.Issued) -> ssl.SSLContext:
    issued = ca.issue_broker(authority, ["localhost", HOST], now=datetime.now(UTC))
    certificate, key = directory / "mail.crt", directory / "mail.key"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextmanager
def mail_server(
    context: ssl.SSLContext | None = None, *, port: int | None = None, login: bool = False
) -> Iterator[tuple[Mailbox, int]]:
    """One that speaks STARTTLS if it has a context, and then insists on it."""
    box = Mailbox()
    named: dict[str, Any] = {}
    if context is not None:
        named = {"tls_context": context, "require_starttls": True}
    if login:
        named |= {"authenticator": _authenticate, "auth_required": True}
    chosen = port or free_port()
    server = Controller(box, hostname=HOST, port=chosen, **named)
    server.start()
    try:
        yield box, chosen
    finally:
        server.stop()


def settings(port: int, tls: Tls = Tls.NONE, **named: Any) -> MailSettings:
    return MailSettings(HOST, port, tls, "fleet@example.org", RECIPIENTS, **named)


def sender(port: int, security: ssl.SSLContext | None = None, **named: Any) -> dict[Sort, Any]:
    context = security or ssl.create_default_context()
    return {Sort.MAIL: MailSender(settings(port, **named), site=SITE, security=context)}


async def begin(rig: Rig, choice: Choice | None = None) -> None:
    rig.subscriptions.keep_mail(choice or Choice(), now_ms=rig.clock())
    rig.postman.changed()


async def sent(rig: Rig, count: int) -> None:
    await rig.until(lambda: rig.delivered(MAIL_ID) == count, "sent", skip_ms=DIGEST_MS // 4)


async def test_what_happens_within_a_while_goes_in_one_letter(engine: Engine) -> None:
    with mail_server() as (box, port):
        async with delivering(engine, senders=sender(port), digest_ms=DIGEST_MS) as rig:
            await begin(rig)
            await rig.happen(Kind.DEVICE_DISCONNECTED, Kind.DEVICE_CONNECTED)
            rig.clock.ahead_ms += DIGEST_MS // 2
            await rig.happen(Kind.GAP_LOST)
            assert box.letters == []
            await sent(rig, 3)
    (letter,) = box.letters
    assert letter["subject"] == "[fieldfleet alarm] 1 gap.lost, 1 device.disconnected, 1 device.connected"
    assert (letter["from"], letter["to"]) == ("fleet@example.org", ", ".join(RECIPIENTS))
    lines = letter.get_content().splitlines()
    assert lines[0] == "3 happenings, times in UTC:"
    assert [line.split("  ")[-1] for line in lines[2:5]] == [
        "cam-0 is not connected any more",
        "cam-1 is connected",
        "cam-0: ? gaps of what was receipted in : lost",
    ]
    assert box.envelopes[0].rcpt_tos == list(RECIPIENTS)


async def test_a_storm_is_told_in_letters_of_a_bounded_length(engine: Engine) -> None:
    with mail_server() as (box, port):
        async with delivering(engine, senders=sender(port), digest_ms=DIGEST_MS) as rig:
            await begin(rig)
            await rig.happen(*([Kind.DEVICE_DISCONNECTED] * 450))
            await sent(rig, 450)
    assert [letter["subject"].split()[2] for letter in box.letters] == ["200", "200", "50"]


@pytest.mark.parametrize("login", [False, True])
async def test_starttls_and_a_login(engine: Engine, tmp_path: Path, authority: ca.Issued, login: bool) -> None:
    trusted = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    with mail_server(_context(tmp_path, authority), login=login) as (box, port):
        named = {"user": USER, "password": PASSWORD} if login else {}
        async with delivering(engine, senders=sender(port, trusted, tls=Tls.STARTTLS, **named)) as rig:
            await begin(rig)
            await rig.happen(Kind.BROKER_LOST)
            await sent(rig, 1)
    assert box.protected == [True]


async def test_a_mail_server_that_cannot_prove_its_name_gets_nothing(
    engine: Engine, tmp_path: Path, authority: ca.Issued
) -> None:
    with mail_server(_context(tmp_path, authority), login=True) as (box, port):
        async with delivering(engine, senders=sender(port, tls=Tls.STARTTLS, user=USER, password=PASSWORD)) as rig:
            await begin(rig)
            await rig.happen(Kind.BROKER_LOST)
            await rig.until(lambda: rig.deliveries(MAIL_ID)[0].attempts == 1, "tried")
            delivery = rig.deliveries(MAIL_ID)[0]
    assert (delivery.state, delivery.status, box.letters) == (State.PENDING, 0, [])
    assert "certificate verify failed" in delivery.error


async def test_a_login_that_is_wrong_is_told_without_the_password(
    engine: Engine, tmp_path: Path, authority: ca.Issued
) -> None:
    trusted = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    with mail_server(_context(tmp_path, authority), login=True) as (box, port):
        named = {"user": USER, "password": "wrong horse"}
        async with delivering(engine, senders=sender(port, trusted, tls=Tls.STARTTLS, **named)) as rig:
            await begin(rig)
            await rig.happen(Kind.BROKER_LOST)
            await rig.until(lambda: rig.deliveries(MAIL_ID)[0].attempts == 1, "tried")
            delivery = rig.deliveries(MAIL_ID)[0]
    assert (delivery.status, box.letters) == (535, [])
    assert "horse" not in delivery.error


async def test_what_a_mail_server_refuses_is_tried_again_as_the_same_letter(engine: Engine) -> None:
    with mail_server() as (box, port):
        box.refusals += ["451 later", "554 no"]
        async with delivering(engine, senders=sender(port)) as rig:
            await begin(rig)
            await rig.happen(Kind.BROKER_LOST)
            await rig.until(lambda: rig.deliveries(MAIL_ID)[0].attempts == 1, "tried")
            assert rig.deliveries(MAIL_ID)[0].status == 451
            await sent(rig, 1)
            assert rig.deliveries(MAIL_ID)[0].attempts == 3
    assert len(box.letters) == 1


async def test_a_mail_server_that_is_away_gets_all_once_it_is_back(engine: Engine) -> None:
    port = free_port()
    async with delivering(engine, senders=sender(port)) as rig:
        await begin(rig, Choice(kinds=frozenset({Kind.GAP_LOST, Kind.WEBHOOK_FAILING})))
        await rig.happen(*([Kind.GAP_LOST] * 5))
        await rig.until(lambda: bool(rig.told(Kind.WEBHOOK_FAILING)), "told", skip_ms=DIGEST_MS)
        with mail_server(port=port) as (box, _):
            await sent(rig, 5)  # of its own failure it is not told by itself
    assert len(box.letters) == 1
    assert box.letters[0].get_content().count("receipted") == 5


async def test_one_recipient_who_is_nobody_does_not_keep_the_letter_from_the_others(engine: Engine) -> None:
    with mail_server() as (box, port):
        box.unknown.add(RECIPIENTS[1])
        async with delivering(engine, senders=sender(port)) as rig:
            await begin(rig)
            await rig.happen(Kind.BROKER_LOST)
            await sent(rig, 1)
            assert rig.deliveries(MAIL_ID)[0].error == f"refused: {RECIPIENTS[1]}"
    assert [each.rcpt_tos for each in box.envelopes] == [[RECIPIENTS[0]]]


async def test_mail_is_of_what_the_configuration_says_and_of_nothing_once_it_says_none(engine: Engine) -> None:
    with mail_server() as (box, port):
        async with delivering(engine, senders=sender(port)) as rig:
            await begin(rig, Choice(severity=Severity.ALARM))
            await rig.happen(Kind.DEVICE_DISCONNECTED, Kind.GAP_LOST)
            await sent(rig, 1)
            rig.subscriptions.keep_mail(None, now_ms=rig.clock())
            rig.postman.changed()
            await rig.happen(Kind.GAP_LOST)
            assert len(rig.deliveries(MAIL_ID)) == 1
            rig.subscriptions.keep_mail(Choice(), now_ms=rig.clock())
            rig.subscriptions.keep_mail(Choice(), now_ms=rig.clock())  # again is the same
            kept = rig.subscriptions.get(MAIL_ID)
            assert kept is not None
            assert (kept.disabled, kept.choice, kept.revision) == ("", Choice(), 3)
    assert len(box.letters) == 1


async def test_what_a_device_says_of_itself_does_not_leave_the_body(engine: Engine) -> None:
    hostile = "x\r\n.\r\nMAIL FROM:<thief@example.org>\r\nBcc: thief@example.org"
    with mail_server() as (box, port):
        async with delivering(engine, senders=sender(port)) as rig:
            await begin(rig)
            news = News(rig.clock(), Kind.DEVICE_UNHEALTHY, "cam-1", "body_camera", "hq", {"why": (hostile,)})
            await rig.recorder.record([news])
            await sent(rig, 1)
    (letter,) = box.letters
    assert letter["bcc"] is None
    assert box.envelopes[0].mail_from == "fleet@example.org"
    assert box.envelopes[0].rcpt_tos == list(RECIPIENTS)
    assert "\\r\\n" in letter.get_content()
