"""InfluxDB as a target, through influxdb-client's asynchronous client; importing it costs 30 MB, so only a server
that is configured for it does.

Written are bytes of our own: the client's batching mode drops points in silence when a server is away for long, and
its ``Point`` costs ten times the rest. Both flavours go through the client's ``call_api``, because its writing API
says only whether the answer was one of two.
"""

import asyncio
import base64
import ssl
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.dbrp_create import DBRPCreate
from influxdb_client.domain.patch_bucket_request import PatchBucketRequest
from influxdb_client.domain.post_bucket_request import PostBucketRequest
from influxdb_client.rest import ApiException
from influxdb_client.service.buckets_service import BucketsService
from influxdb_client.service.dbr_ps_service import DBRPsService
from influxdb_client.service.organizations_service import OrganizationsService

from broker_config.text import shown
from fleet_server.projection.target import NO_ANSWER, Answer, PrepareError

POST_TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 1
DAY_S: Final = 86_400
POLICY: Final = "fieldfleet"
"""The retention policy that is made in InfluxDB 1, and what the bucket is called towards InfluxQL in 2."""
GZIP_LEVEL: Final = 1
NANOSECONDS: Final = {"v1": "n", "v2": "ns"}
_GZIP_WBITS: Final = 31
_NO_ROOM_FOR_REDIRECTS: Final = False  # they would carry the token to somebody else


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """``flavour``: v1 (InfluxDB 1.x: *bucket* is its database, *token* is ``user:password``) or v2 (2.x, 3.x, and
    what takes its writes). ``retention_d``: 0 is for ever. ``manage``: make the bucket and set its retention.
    ``security``: for https. ``shard_d``: how much time is in one shard; 0: as the server sees fit.
    """

    url: str
    flavour: str
    org: str
    bucket: str
    token: str = field(repr=False)
    retention_d: int
    manage: bool
    gzip: bool
    security: ssl.SSLContext | None = None
    shard_d: int = 0


class InfluxTarget:
    """The port :class:`fleet_server.projection.target.Target`; made in the loop that uses it."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        v1 = settings.flavour == "v1"
        self._connections = 0
        self._client = InfluxDBClientAsync(
            url=settings.url,
            token="" if v1 else settings.token,  # an empty one is not sent
            org=settings.org,
            timeout=int(POST_TIMEOUT_S * 1000),
            allow_redirects=_NO_ROOM_FOR_REDIRECTS,
            connection_pool_maxsize=CONNECTIONS_MAX,
            ssl_context=settings.security,
            client_session_type=self._session,
        )
        self._api = self._client.api_client
        if v1 and settings.token:
            basic = base64.b64encode(settings.token.encode()).decode()
            self._api.set_default_header("Authorization", f"Basic {basic}")
        self._headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"}
        if settings.gzip:
            self._headers["Content-Encoding"] = "gzip"
        names = {"db": settings.bucket} if v1 else {"org": settings.org, "bucket": settings.bucket}
        self._query = list({**names, "precision": NANOSECONDS[settings.flavour]}.items())
        self._path = "/write" if v1 else "/api/v2/write"

    async def write(self, body: bytes) -> Answer:
        """See the port."""
        if self._settings.gzip:
            packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
            body = packer.compress(body) + packer.flush()
        before = self._connections
        answer = await self._call(self._path, "POST", self._query, body)
        return answer._replace(fresh=self._connections != before)

    def _session(self, **options: Any) -> aiohttp.ClientSession:  # noqa: ANN401 - the client's own
        """A session that counts its connections."""

        async def made(*_: object) -> None:
            self._connections += 1

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(made)
        return aiohttp.ClientSession(**{**options, "trace_configs": [trace]})

    async def _call(self, path: str, method: str, query: list[tuple[str, str]], body: bytes | None) -> Answer:
        try:
            _, status, headers = await self._api.call_api(
                path,
                method,
                query_params=query,
                header_params=dict(self._headers),
                body=body,
                _return_http_data_only=False,
            )
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            return answer_of(error)
        return Answer(status, headers.get("Retry-After", ""))

    async def prepare(self) -> None:
        """See the port."""
        if not self._settings.manage:
            return
        try:
            if self._settings.flavour == "v1":
                await self._prepare_v1()
            else:
                await self._prepare_v2()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            answer = answer_of(error)
            raise PrepareError(_advice(self._settings, answer), answer) from error
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, msgspec.MsgspecError) as error:
            # not what such a server says: the client could make nothing of it
            answer = Answer(200, text=shown(error))
            raise PrepareError(_advice(self._settings, answer), answer) from error

    async def close(self) -> None:
        """See the port."""
        await self._client.close()

    # InfluxDB 2: bucket, retention, and the name that InfluxQL finds it by

    async def _prepare_v2(self) -> None:
        settings, buckets = self._settings, BucketsService(self._api)
        rules = (
            [
                BucketRetentionRules(
                    type="expire",
                    every_seconds=settings.retention_d * DAY_S,
                    shard_group_duration_seconds=settings.shard_d * DAY_S or None,
                )
            ]
            if settings.retention_d or settings.shard_d
            else []
        )
        found = await self._found_bucket(buckets)
        if found is None:
            orgs = await OrganizationsService(self._api).get_orgs_async(org=settings.org)
            wanted = PostBucketRequest(org_id=orgs.orgs[0].id, name=settings.bucket, retention_rules=rules)
            found = await buckets.post_buckets_async(post_bucket_request=wanted)
        elif _seconds(found.retention_rules) != _seconds(rules):
            change = PatchBucketRequest(retention_rules=rules)
            found = await buckets.patch_buckets_id_async(bucket_id=found.id, patch_bucket_request=change)
        mappings = DBRPsService(self._api)
        held = await mappings.get_dbr_ps_async(org_id=found.org_id, db=settings.bucket)
        if not held.content:
            mapping = DBRPCreate(
                org_id=found.org_id,
                bucket_id=found.id,
                database=settings.bucket,
                retention_policy=POLICY,
                default=True,
            )
            await mappings.post_dbrp_async(dbrp_create=mapping)

    async def _found_bucket(self, buckets: Any) -> Any:  # noqa: ANN401 - the client has no types
        settings = self._settings
        try:
            found = await buckets.get_buckets_async(name=settings.bucket, org=settings.org)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return next((bucket for bucket in found.buckets or () if bucket.name == settings.bucket), None)

    # InfluxDB 1: database and retention policy

    async def _prepare_v1(self) -> None:
        settings = self._settings
        database, days = quoted(settings.bucket), settings.retention_d
        duration = f"{days}d" if days else "INF"
        shard = f" SHARD DURATION {settings.shard_d}d" if settings.shard_d else ""
        await self._statement(f"CREATE DATABASE {database}")
        policies = await self._statement(f"SHOW RETENTION POLICIES ON {database}")
        # the same name twice is no error if nothing differs, and one that says so if anything does
        verb = "ALTER" if POLICY in policies else "CREATE"
        await self._statement(
            f"{verb} RETENTION POLICY {quoted(POLICY)} ON {database} DURATION {duration} REPLICATION 1{shard} DEFAULT"
        )

    async def _statement(self, statement: str) -> list[str]:
        """The first column of its answer. Raises ApiException if the server has anything against it."""
        response = await self._api.call_api(
            "/query",
            "POST",
            query_params=[("q", statement)],
            header_params={"Accept": "application/json"},
            response_type=object,
            _return_http_data_only=True,
        )
        (result,) = msgspec.convert(response, _Results).results
        if result.error:
            raise ApiException(status=400, reason=result.error)
        return [str(row[0]) for series in result.series for row in series.values]


class _ResultSeries(msgspec.Struct):
    values: list[list[object]] = []


class _Result(msgspec.Struct):
    error: str = ""
    series: list[_ResultSeries] = []


class _Results(msgspec.Struct):
    """What ``/query`` of InfluxDB 1 answers."""

    results: list[_Result]


def quoted(name: str) -> str:
    """An identifier of InfluxQL."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def answer_of(error: Exception) -> Answer:
    """What the server said, or that it said nothing."""
    if isinstance(error, ApiException):
        retry_after = error.headers.get("Retry-After", "") if error.headers else ""
        return Answer(error.status or NO_ANSWER, retry_after, shown(_message(error.body or error.reason)))
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return Answer(NO_ANSWER, text=f"not within {POST_TIMEOUT_S:.0f} s")
    return Answer(NO_ANSWER, text=shown(error) or type(error).__name__)


class _Said(msgspec.Struct):
    """InfluxDB 2 has ``message``, InfluxDB 1 ``error``."""

    message: str = ""
    error: str = ""


def _message(body: object) -> object:
    if not isinstance(body, bytes):
        return body
    try:
        said = msgspec.json.decode(body, type=_Said)
    except msgspec.MsgspecError:
        return body
    return said.message or said.error or body


def _seconds(rules: Any) -> int:  # noqa: ANN401 - the client has no types
    return sum(rule.every_seconds or 0 for rule in rules or ())


_ADVICE: Final = {
    400: "if it keeps no buckets (VictoriaMetrics), set influx.manage = false",
    NO_ANSWER: "is the server there?",
    401: "influx.token_file: expected a token of this server",
    403: "the token must be allowed to make buckets; or make it yourself and set influx.manage = false",
    404: "is influx.flavour right, and influx.org the organisation's name?",
}


def _advice(settings: InfluxSettings, answer: Answer) -> str:
    """What happened, and what to do about it."""
    what = "database" if settings.flavour == "v1" else "bucket"
    advice = _ADVICE.get(answer.status, "is influx.url a time-series server's?")
    said = f"{answer.status}: {answer.text}" if answer.status else answer.text
    return f"no {what} {shown(settings.bucket)} ({said}); {advice}"
