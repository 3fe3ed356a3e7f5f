"""A time-stamping authority over HTTP (RFC 3161 section 3.4).

The signature is checked if it is known whose certificates count; without, the answer is kept for who knows.
"""

import hashlib
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)
from rfc3161_client.tsp import PKIStatus, TimeStampRequest, TimeStampResponse

from broker_config.text import shown
from fleet_server.access.timestamps import ANSWER_BYTES_MAX, TimestampError

QUERY: Final = "application/timestamp-query"
REPLY: Final = "application/timestamp-reply"
TIMEOUT_S: Final = 15.0
GRANTED: Final = frozenset({PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS})


class HttpAuthority:
    """See :class:`fleet_server.access.timestamps.Authority`."""

    def __init__(self, url: str, *, roots_file: Path | None = None, security: ssl.SSLContext | None = None) -> None:
        """*roots_file*: PEM, whose signatures count; *security*: None: whom this machine trusts.

        Raises:
            OSError, ValueError: the file is not there, or has no certificates.
        """
        self._url = url
        self._roots = [] if roots_file is None else x509.load_pem_x509_certificates(roots_file.read_bytes())
        verify: ssl.SSLContext | bool = True if security is None else security
        self._client = httpx.Client(timeout=TIMEOUT_S, verify=verify, trust_env=False, follow_redirects=False)

    @property
    def name(self) -> str:
        """See the port."""
        return self._url

    def stamp(self, data: bytes) -> bytes:
        """See the port."""
        request = TimestampRequestBuilder(data=data, hash_algorithm=HashAlgorithm.SHA256).build()
        answer = self._asked(request.as_bytes())
        try:
            response = decode_timestamp_response(answer)
            self._check(request, response, data)
        except (ValueError, VerificationError) as error:
            raise TimestampError(f"{self._url}: {shown(error)}") from error
        return answer

    def _asked(self, query: bytes) -> bytes:
        headers = {"Content-Type": QUERY, "Accept": REPLY}
        try:
            with self._client.stream("POST", self._url, content=query, headers=headers) as answer:
                if answer.status_code != HTTPStatus.OK:
                    raise TimestampError(f"{self._url}: expected 200, got {answer.status_code}")
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        raise TimestampError(f"{self._url}: expected at most {ANSWER_BYTES_MAX} bytes")
                return body
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TimestampError(f"{self._url}: {shown(error) or type(error).__name__}") from error

    def _check(self, request: TimeStampRequest, response: TimeStampResponse, data: bytes) -> None:
        """Raises ValueError, VerificationError."""
        if response.status not in {status.value for status in GRANTED}:
            raise ValueError(f"not granted: {response.status}")
        info = response.tst_info
        if info.nonce != request.nonce:
            raise ValueError("the answer is of another request")
        if info.message_imprint.message != hashlib.sha256(data).digest():
            raise ValueError("the answer is of another checkpoint")
        if self._roots:
            builder = VerifierBuilder.from_request(request)
            for root in self._roots:
                builder = builder.add_root_certificate(root)
            builder.build().verify_message(response, data)
