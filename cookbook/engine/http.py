"""What every HTTP handler needs: the key, bodies, and errors as status codes.

Owns: the one mapping from an exception to what the client reads.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cookbook.engine.errors import NotFoundError, UserError

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]
RouteTable = dict[tuple[str, str], Handler]  # by method, and path below /api/v1/
Model = TypeVar("Model", bound=BaseModel)


def guarded(handler: Handler, api_key: str, *, checks_size: bool = False) -> Handler:
    """Wrap a handler with the key check and the mapping from errors to status codes.

    Args:
        checks_size: the handler itself says when a body is too large.
    """

    async def answer(request: Request) -> Response:
        key = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(key.encode(), api_key.encode()):
            return problem(401, "the X-API-Key header is missing or not this engine's key")
        size = int(request.headers.get("content-length") or 0)
        if size > MAX_BODY_BYTES and not checks_size:
            return problem(413, too_large(size))
        try:
            return await handler(request)
        except NotFoundError as error:
            return problem(404, str(error))
        except UserError as error:
            return problem(400, str(error))
        except ValidationError as error:
            return problem(422, _validation_text(error))
        except Exception as error:  # a 500 would make the SDK ask again for minutes
            log.exception("%s failed", request.url.path)
            return problem(400, f"engine error: {type(error).__name__}: {error}")

    return answer


async def json_body(request: Request) -> dict[str, Any]:
    """Return a request's body, a JSON object; raise UserError if it is none."""
    try:
        body = await request.json()
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise UserError(f"the body is a JSON {type(body).__name__}; it must be an object")
    return body


def parse(model: type[Model], raw: Any) -> Model:
    """Validate a JSON body; the error says which field, and works as the text of a future."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(_validation_text(error)) from None


def too_large(size: int) -> str:
    """Return what a client reads whose body has so many bytes."""
    return f"the body has {size} bytes; at most {MAX_BODY_BYTES} are taken. Send less at a time"


def strings(metadata: dict[str, Any] | None) -> dict[str, str]:
    """Return the user's metadata with every value as text."""
    return {key: str(value) for key, value in (metadata or {}).items()}


def problem(status: int, text: str) -> Response:
    """Return an error response."""
    return JSONResponse({"detail": text}, status_code=status)


def _validation_text(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']} (got {first.get('input')!r})"
