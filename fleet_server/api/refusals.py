"""The registry's errors as problems, and merge patches that cannot be."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import msgspec

from fleet_server.api.conditions import etag
from fleet_server.api.problems import ProblemError, bad_request, not_found
from fleet_server.registry import model
from fleet_server.registry.model import (
    BeyondError,
    FullError,
    InUseError,
    RegistryError,
    RuleError,
    Said,
    StaleError,
    TakenError,
    UnknownError,
)

MERGE_PATCH: Final = "application/merge-patch+json"
CHANGE: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.PRECONDITION_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
)
"""What a conditional change may answer beside success."""
_CONFLICTS: Final[Mapping[type[RegistryError], tuple[str, str]]] = {
    TakenError: ("taken", "It is another's"),
    InUseError: ("in-use", "It is in use"),
    FullError: ("too-many", "There are too many"),
}


@contextmanager
def translated(subject: str | None) -> Iterator[None]:
    """The registry's errors as problems; *subject* is what the path names: that it is not there is 404, that what the
    request refers to is not there is 422.
    """
    try:
        yield
    except UnknownError as error:
        if error.name == subject:
            raise not_found(error.what, str(error), expected=f"a {error.what} that is there") from error
        expected = f"a {error.what} that is there"
        raise bad_request(f"body.{error.what}", expected=expected, got=error.name) from error
    except StaleError as error:
        raise ProblemError(
            HTTPStatus.PRECONDITION_FAILED,
            "stale",
            "It was changed meanwhile",
            str(error),
            expected=f"If-Match: {etag(error.revision)}, once you have looked at it again",
            headers={"ETag": etag(error.revision)},
        ) from error
    except BeyondError as error:
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "Not yours to do", str(error)) from error
    except (TakenError, InUseError, FullError) as error:
        raise ProblemError(HTTPStatus.CONFLICT, *_CONFLICTS[type(error)], str(error)) from error
    except RuleError as error:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "against-the-rules", "The organisation tree has rules", str(error)
        ) from error
    except RegistryError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "refused", "The registry refuses", str(error)) from error


def patched(kind: type[Said], before: Said, patch: Mapping[str, object]) -> Said:
    """What a merge patch makes of *before*. Raises ProblemError: it takes away what must be there."""
    try:
        return model.patched(kind, before, patch)
    except msgspec.ValidationError as error:
        raise bad_request("body", expected="a patch that leaves what must be there", got=str(error)) from error
