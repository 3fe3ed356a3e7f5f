"""One microcontroller over SMP: all that this product uses of smpclient, which is its messages and its upload.

Two faults of smpclient 7.3.0 and smp 4.2.0 are kept from the rest: an error that the library has no name for comes as
an answer that cannot be parsed; and an upload to a device that says the same offset for ever does not end.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from smp.exceptions import SMPException
from smp.image_management import ImageState
from smpclient import SMPClient
from smpclient.exceptions import SMPBadSequence, SMPUploadError, SMPValidationException
from smpclient.generics import SMPRequest, TEr1, TEr2, TRep, error_v1, error_v2
from smpclient.requests.image_management import ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import ResetWrite

from broker_config.text import shown
from firmware_bridge.adapters.smp_links import BROKEN, Link, told
from firmware_bridge.firmware.flow import Slots
from firmware_bridge.firmware.ports import DeviceRefusedError, LinkError

CONNECT_S: Final = 20.0
ANSWER_S: Final = 5.0
FIRST_CHUNK_S: Final = 40.0
"""Before the first answer many devices erase the whole slot."""
STALLS_MAX: Final = 8
"""Answers in an upload that bring it no further."""
CLOSE_S: Final = 5.0
# it logs whole messages, bytes and all, as errors; what became of a question is said by who asked it
logging.getLogger("smpclient").setLevel(logging.CRITICAL)
_NOT_UNDERSTOOD: Final = (SMPException, SMPValidationException, ValueError)
_BROKEN: Final = (*BROKEN, SMPBadSequence)


class SmpSession:
    """Questions to one device, one at a time; the link is opened when it is needed, and anew after it broke."""

    def __init__(
        self, link: Callable[[], Link], *, answer_s: float = ANSWER_S, first_chunk_s: float = FIRST_CHUNK_S
    ) -> None:
        self._new_link = link
        self._answer_s = answer_s
        self._first_chunk_s = first_chunk_s
        self._open: tuple[Link, SMPClient] | None = None

    async def ask(self, question: SMPRequest[TRep, TEr1, TEr2], timeout_s: float | None = None) -> TRep:
        """The answer to *question*, a request of smpclient.

        Raises:
            LinkError: there was none; the link is closed.
            DeviceRefusedError: it is an error; the message has its group and number.
        """
        link, client = await self._opened()
        seconds = timeout_s or self._answer_s
        link.answer = b""
        try:
            async with asyncio.timeout(2 * seconds):  # ours, should the library's not work
                answer = await client.request(question, timeout_s=seconds)
        except _BROKEN as error:
            await self.close()
            raise LinkError(shown(error) or type(error).__name__) from error
        except _NOT_UNDERSTOOD as error:
            raise DeviceRefusedError(told(link.answer)) from error
        except asyncio.CancelledError:
            await self.close()
            raise
        if error_v1(answer) or error_v2(answer):
            raise DeviceRefusedError(told(link.answer))
        return answer

    async def upload(self, data: bytes) -> AsyncIterator[int]:
        """See McuDevice. Raises LinkError, DeviceRefusedError."""
        link, client = await self._opened()
        offsets = client.upload(
            data,
            upgrade=False,  # it would be confirmed before it ever ran
            first_timeout_s=self._first_chunk_s,
            subsequent_timeout_s=self._answer_s,
            use_sha=True,
        )
        most = stalls = 0
        try:
            while True:
                async with asyncio.timeout(self._first_chunk_s + self._answer_s):
                    offset = await anext(offsets, None)
                if offset is None:
                    return
                stalls = 0 if offset > most else stalls + 1
                if offset > len(data) or stalls > STALLS_MAX:
                    raise DeviceRefusedError(f"expected an offset above {most} of {len(data)}, got {offset}")
                most = max(most, offset)
                yield offset
        except _BROKEN as error:
            await self.close()
            raise LinkError(shown(error) or type(error).__name__) from error
        except (SMPUploadError, *_NOT_UNDERSTOOD) as error:
            raise DeviceRefusedError(told(link.answer)) from error

    async def _opened(self) -> tuple[Link, SMPClient]:
        if self._open is None:
            link = self._new_link()
            client = SMPClient(link, "", timeout_s=self._answer_s)
            self._open = link, client
            try:
                async with asyncio.timeout(CONNECT_S + 2 * self._answer_s):
                    await client.connect(CONNECT_S)
            except _BROKEN as error:
                await self.close()
                raise LinkError(shown(error) or type(error).__name__) from error
            except _NOT_UNDERSTOOD as error:
                await self.close()
                raise LinkError(f"not an SMP server: {told(link.answer)}") from error
            except asyncio.CancelledError:
                await self.close()
                raise
        return self._open

    async def close(self) -> None:
        """Let go of the link. Idempotent, never raises."""
        opened, self._open = self._open, None
        if opened is not None:
            # whatever a broken link raises here, it is gone
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await opened[0].disconnect()


class SmpDevice:
    """See :class:`~firmware_bridge.firmware.ports.McuDevice`; image 0 of it."""

    def __init__(self, session: SmpSession) -> None:
        self._session = session

    async def slots(self) -> Slots:
        return _slots((await self._session.ask(ImageStatesRead())).images)

    def upload(self, data: bytes) -> AsyncIterator[int]:
        return self._session.upload(data)

    async def test(self, image: bytes) -> None:
        await self._session.ask(ImageStatesWrite(hash=image, confirm=False))

    async def reset(self) -> None:
        with contextlib.suppress(LinkError):  # many a device resets before it answers
            await self._session.ask(ResetWrite())
        await self._session.close()

    async def confirm(self, image: bytes) -> None:  # noqa: ARG002  # whoever has no better way needs it
        # Without a hash: what runs. With one, a device that went back in this very moment would keep the image
        # beside it for ever without having tried it.
        await self._session.ask(ImageStatesWrite(confirm=True))

    async def close(self) -> None:
        await self._session.close()


def _slots(images: Sequence[ImageState]) -> Slots:
    """Raises DeviceRefusedError: it is not said what runs."""
    first = [image for image in images if not image.image]
    active = [image for image in first if image.active]
    others = [image for image in first if not image.active]
    if len(active) != 1 or len(others) > 1 or active[0].hash is None:
        raise DeviceRefusedError(f"expected one active image with a hash and one beside it, got {len(first)} images")
    other = others[0] if others else None
    return Slots(
        active=bytes(active[0].hash),
        confirmed=bool(active[0].confirmed),
        other=b"" if other is None or other.hash is None else bytes(other.hash),
        pending=bool(other and other.pending),
        permanent=bool(other and other.permanent),
    )
