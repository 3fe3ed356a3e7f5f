"""SNMP messages as bytes: all that this product uses of pysnmp, which is its messages and not its engine; sockets,
retries and timing are our own. Versions 1 and 2c; what they call a community is no secret on the wire.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from pyasn1.codec.ber import decoder, encoder  # type: ignore[import-untyped]
from pyasn1.error import PyAsn1Error  # type: ignore[import-untyped]
from pyasn1.type.univ import Integer  # type: ignore[import-untyped]
from pysnmp.proto.api import v1, v2c  # type: ignore[import-untyped]
from pysnmp.proto.error import ProtocolError  # type: ignore[import-untyped]
from pysnmp.proto.rfc1155 import Counter  # type: ignore[import-untyped]

Oid: TypeAlias = tuple[int, ...]
Version: TypeAlias = Literal["1", "2c"]
MESSAGE_BYTES_MAX: Final = 8192
TOO_BIG: Final = 1
ERRORS: Final = {
    1: "the answer is too big for the agent",
    2: "the agent has no such object",
    3: "the agent does not take this value",
    4: "the agent says it is read-only",
    5: "the agent failed with a general error",
    6: "the agent gives no access",
    7: "the agent expects another type",
    10: "the agent does not take this value",
    11: "the agent does not create it",
    16: "the agent is not authorised",
    17: "the agent says it is not writable",
}
_MODULES: Final = {"1": v1, "2c": v2c}
_VERSIONS: Final = {"1": 0, "2c": 1}


class Answer(NamedTuple):
    """``values``: object -> its number; a text says why there is none. ``error``: a code of ERRORS or 0, and
    ``error_at`` which object of the question (from 1) it is about, 0: none in particular. With an error no value
    counts.
    """

    values: dict[Oid, int | str]
    error: int
    error_at: int


class Question(NamedTuple):
    """``sets`` empty: the numbers of ``oids`` are asked for; else it is what each is to become, as an integer or,
    with ``counter``, as a counter.
    """

    version: Version
    community: str
    number: int
    oids: tuple[Oid, ...]
    sets: tuple[int, ...] = ()
    counter: bool = False

    def message(self) -> bytes:
        """As it goes onto the wire."""
        api = _MODULES[self.version]
        pdu = api.SetRequestPDU() if self.sets else api.GetRequestPDU()
        api.apiPDU.set_defaults(pdu)
        api.apiPDU.set_request_id(pdu, self.number)
        api.apiPDU.set_varbinds(pdu, list(zip(self.oids, self._values(), strict=True)))
        message = api.Message()
        api.apiMessage.set_defaults(message)
        api.apiMessage.set_community(message, self.community.encode())
        api.apiMessage.set_pdu(message, pdu)
        data: bytes = encoder.encode(message)
        return data

    def _values(self) -> Sequence[object]:
        api = _MODULES[self.version]
        if not self.sets:
            return [api.null] * len(self.oids)
        if not self.counter:
            return [api.Integer(value) for value in self.sets]
        return [Counter(value) if self.version == "1" else v2c.Counter32(value) for value in self.sets]

    def answer(self, data: bytes) -> Answer | None:
        """What *data* answers; None: it is no answer to this question."""
        api = _MODULES[self.version]
        if len(data) > MESSAGE_BYTES_MAX:
            return None
        try:
            message, _ = decoder.decode(data, asn1Spec=api.Message())
            pdu = api.apiMessage.get_pdu(message)
            number = int(api.apiPDU.get_request_id(pdu))
            community = bytes(api.apiMessage.get_community(message))
            version = int(api.apiMessage.get_version(message))
            error, at = int(api.apiPDU.get_error_status(pdu)), int(api.apiPDU.get_error_index(pdu))
            pairs = [(tuple(oid), _number(found)) for oid, found in api.apiPDU.get_varbinds(pdu)]
        except (PyAsn1Error, ProtocolError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
            return None
        ours = (_VERSIONS[self.version], self.community.encode(), self.number)
        if not isinstance(pdu, api.GetResponsePDU) or (version, community, number) != ours:
            return None
        if error == 0 and tuple(oid for oid, _ in pairs) != self.oids:
            return None
        return Answer(dict(pairs), error, at if 1 <= at <= len(self.oids) else 0)


def _number(found: object) -> int | str:
    if isinstance(found, v2c.NoSuchObject | v2c.NoSuchInstance | v2c.EndOfMibView):
        return ERRORS[2]
    if isinstance(found, Integer):  # counters, gauges and time ticks are integers too
        return int(found)
    return "expected a number"
