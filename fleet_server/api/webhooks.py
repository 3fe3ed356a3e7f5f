"""``/v1/webhooks``: who is told of what happens, and how far that has come."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Body, Path, Query, Response

from broker_config import limits
from fleet_server.api import outbound_models as models
from fleet_server.api import pages, times
from fleet_server.api.conditions import IfMatch, etag, to_change
from fleet_server.api.problems import ProblemError, bad_request, not_found, responses
from fleet_server.api.refusals import CHANGE, MERGE_PATCH, translated
from fleet_server.api.routes import Routes
from fleet_server.outbound import targets
from fleet_server.outbound.happenings import Severity
from fleet_server.outbound.retries import State
from fleet_server.outbound.signing import SECRET_BYTES, secret_text
from fleet_server.outbound.store import FullError, StaleError, Subscriptions
from fleet_server.outbound.subscriptions import ID_PATTERN, SUBSCRIPTIONS_MAX, Choice, Sort, Subscription
from fleet_server.registry import model

ID_CHARS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
ID_RANDOM_CHARS: Final = 9
BY_OPERATOR: Final = "disabled by an operator"

WebhookId: TypeAlias = Annotated[str, Path(pattern=ID_PATTERN, examples=["w3k9x2m7q4"])]
HappeningId: TypeAlias = Annotated[int, Path(ge=1, le=limits.SEQ_MAX, examples=[4711])]


def routes(subscriptions: Subscriptions, clock: times.Clock, wake: Callable[[], None]) -> Routes:
    """The routes of webhooks. Every one blocks on the database, so the framework runs it in a thread.

    *wake*: called after each change, so that it counts at once.
    """
    router = Routes(tags=["webhooks"])
    _receivers(router, subscriptions, clock, wake)
    _deliveries(router, subscriptions, clock, wake)
    return router


def _receivers(router: Routes, subscriptions: Subscriptions, clock: times.Clock, wake: Callable[[], None]) -> None:
    path = "/v1/webhooks/{webhook}"

    def answer(each: Subscription, response: Response) -> models.Webhook:
        response.headers["ETag"] = etag(each.revision)
        return models.Webhook.of(each)

    @router.get("/v1/webhooks", summary="Every webhook")
    def webhooks(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.WebhookPage:
        """By id, without their secrets."""
        after = pages.read_cursor(cursor, str, "")
        known = sorted(
            (each for each in subscriptions.all() if each.sort is Sort.WEBHOOK and each.id > after),
            key=lambda each: each.id,
        )
        page, follows = pages.cut(known, limit)
        return models.WebhookPage(
            webhooks=[models.Webhook.of(each) for each in page],
            next=pages.write_cursor(page[-1].id) if follows else None,
        )

    @router.post(
        "/v1/webhooks",
        summary="Make a webhook",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.CONFLICT),
    )
    def make(body: models.WebhookIn, response: Response) -> models.WebhookMade:
        """The answer has the secret that signs what is sent. It is not told again."""
        made = Subscription(
            id="w" + "".join(secrets.choice(ID_CHARS) for _ in range(ID_RANDOM_CHARS)),
            sort=Sort.WEBHOOK,
            url=_checked(body.url),
            secret=secret_text(secrets.token_bytes(SECRET_BYTES)),
            choice=Choice(frozenset(body.kinds), body.severity, body.org or ""),
            note=body.note,
            disabled="" if body.enabled else BY_OPERATOR,
            revision=1,
            created_ms=clock(),
        )
        try:
            subscriptions.add(made)
        except FullError as error:
            detail = f"there are {SUBSCRIPTIONS_MAX} subscriptions"
            raise ProblemError(
                HTTPStatus.CONFLICT, "too-many-webhooks", "Too many webhooks", detail, expected="fewer"
            ) from error
        wake()
        response.headers["ETag"] = etag(made.revision)
        return models.WebhookMade.with_secret(made)

    @router.get(path, summary="One webhook", responses=responses(HTTPStatus.NOT_FOUND))
    def webhook(webhook: WebhookId, response: Response) -> models.Webhook:
        """With its ETag, which a change must give; without its secret."""
        return answer(held(subscriptions, webhook), response)

    @router.patch(path, summary="Change a webhook", responses=responses(*CHANGE))
    def change(
        webhook: WebhookId,
        body: Annotated[models.WebhookPatch, Body(media_type=MERGE_PATCH)],
        response: Response,
        if_match: IfMatch = None,
    ) -> models.Webhook:
        """A merge patch. What waits for it waits on while it is disabled."""
        condition = to_change(if_match)
        with _conditional(webhook):
            before = _expected(held(subscriptions, webhook), condition.expected)
            changed = subscriptions.change(patched(before, body))
        wake()
        return answer(changed, response)

    @router.delete(
        path, summary="Take a webhook away", status_code=HTTPStatus.NO_CONTENT, responses=responses(*CHANGE)
    )
    def drop(webhook: WebhookId, if_match: IfMatch = None) -> None:
        """With everything that waits for it."""
        condition = to_change(if_match)
        with _conditional(webhook):
            before = _expected(held(subscriptions, webhook), condition.expected)
            subscriptions.remove(webhook, before.revision)
        wake()


def _deliveries(router: Routes, subscriptions: Subscriptions, clock: times.Clock, wake: Callable[[], None]) -> None:
    path = "/v1/webhooks/{webhook}"

    @router.post(
        f"{path}/test",
        summary="Send a test",
        status_code=HTTPStatus.ACCEPTED,
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    def test(webhook: WebhookId) -> models.Happening:
        """A happening for this webhook alone; its delivery says what became of it."""
        enabled(webhook)
        try:
            recorded = subscriptions.test(webhook, now_ms=clock())
        except KeyError as error:
            raise _unknown(webhook) from error
        wake()
        return models.Happening.of(recorded)

    @router.get(
        f"{path}/deliveries", summary="What was sent, and what waits", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def deliveries(
        webhook: WebhookId,
        state: Annotated[State | None, Query(description="Only these; all if not given.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.DeliveryPage:
        """The newest happening first."""
        held(subscriptions, webhook)
        before = pages.read_cursor(cursor, pages.RowNumber, -1)
        found = subscriptions.deliveries(
            webhook, before=None if before < 0 else before, state=state, rows_max=limit + 1
        )
        page, follows = pages.cut(found, limit)
        return models.DeliveryPage(
            deliveries=[models.Delivery.of(each) for each in page],
            next=pages.write_cursor(page[-1].happening) if follows else None,
        )

    @router.post(
        f"{path}/deliveries/{{happening}}/retry",
        summary="Send something again",
        status_code=HTTPStatus.ACCEPTED,
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    def retry(webhook: WebhookId, happening: HappeningId) -> models.Delivery:
        """Whatever became of it before, it is tried anew for three days."""
        enabled(webhook)
        try:
            again = subscriptions.again(webhook, happening, now_ms=clock())
        except KeyError as error:
            detail = f"{happening} was never to be sent to {webhook}, or is not kept any more"
            raise not_found("delivery", detail, expected="a happening of its deliveries") from error
        wake()
        return models.Delivery.of(again)

    def enabled(webhook: str) -> None:
        found = held(subscriptions, webhook)
        if found.disabled:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "webhook-disabled",
                "The webhook is disabled",
                f"{webhook}: {found.disabled}",
                expected="an enabled webhook",
            )


def held(subscriptions: Subscriptions, webhook: str) -> Subscription:
    """Raises ProblemError: there is no such webhook."""
    found = subscriptions.get(webhook)
    if found is None or found.sort is not Sort.WEBHOOK:
        raise _unknown(webhook)
    return found


def patched(before: Subscription, body: models.WebhookPatch) -> Subscription:
    """*before* with what the patch names. Raises ProblemError: a URL that cannot be sent to, or none."""
    given, choice = body.model_fields_set, before.choice
    if "url" in given and body.url is None:
        raise bad_request("body.url", expected="a URL", got="null")
    choice = replace(
        choice,
        kinds=frozenset(body.kinds or ()) if "kinds" in given else choice.kinds,
        severity=(body.severity or Severity.INFO) if "severity" in given else choice.severity,
        org=(body.org or "") if "org" in given else choice.org,
    )
    disabled = before.disabled
    if "enabled" in given:
        disabled = "" if body.enabled is not False else before.disabled or BY_OPERATOR
    return replace(
        before,
        url=_checked(body.url) if body.url is not None else before.url,
        choice=choice,
        note=(body.note or "") if "note" in given else before.note,
        disabled=disabled,
    )


@contextmanager
def _conditional(webhook: str) -> Iterator[None]:
    with translated(webhook):
        try:
            yield
        except StaleError as error:
            raise model.StaleError(error.revision) from error
        except KeyError as error:
            raise _unknown(webhook) from error


def _expected(found: Subscription, revision: int | None) -> Subscription:
    if revision is not None and found.revision != revision:
        raise StaleError(found.revision)
    return found


def _checked(url: str) -> str:
    try:
        targets.parse(url)
    except targets.TargetError as error:
        raise bad_request("body.url", expected=str(error), got=url) from error
    return url


def _unknown(webhook: str) -> ProblemError:
    return not_found("webhook", f"there is no webhook {webhook}", expected="an id of /v1/webhooks")
