"""What Envoy answers by itself, as google.rpc.Status: by what went wrong, the most specific first.

Envoy tells a local reply apart by its HTTP status and by its response code details, a short text for logs.
"""

from typing import NamedTuple

from google.rpc import code_pb2

_SOON = 1  # a second


class Reply(NamedTuple):
    """One kind of local reply."""

    condition: str
    """The CEL expression that knows it."""
    code: int
    reason: str
    message: str
    """May hold Envoy's command operators."""
    http: int
    retry_after: int = 0
    """Seconds after which trying again may help; 0 if it won't."""


def replies(max_body_bytes: int) -> list[Reply]:
    """Return all of them; the last two catch what no other does."""
    return [
        *_tokens(),
        Reply(
            _details("grpc_json_transcode_failure", 400),
            code_pb2.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
            # What the check before has not found; Envoy says it in terms of its own types, without the field.
            "a value of the request is not of the kind that its field takes",
            400,
        ),
        _on(404, code_pb2.NOT_FOUND, "ROUTE_NOT_FOUND", "there is nothing at this path"),
        _on(405, code_pb2.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this path does not have this method"),
        _on(408, code_pb2.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT", "the request did not arrive in time"),
        _on(413, code_pb2.INVALID_ARGUMENT, "BODY_TOO_LARGE", f"the body exceeds {max_body_bytes} bytes"),
        _on(429, code_pb2.RESOURCE_EXHAUSTED, "RATE_LIMITED", "too many requests, please slow down", _SOON),
        _on(431, code_pb2.INVALID_ARGUMENT, "HEADERS_TOO_LARGE", "the headers of the request are too large"),
        Reply(
            _details("overflow", 503),
            code_pb2.RESOURCE_EXHAUSTED,
            "OVERLOADED",
            "too many requests at once, please try again",
            429,
            _SOON,
        ),
        *(
            _on(
                http,
                code_pb2.UNAVAILABLE,
                "UPSTREAM_UNAVAILABLE",
                "temporarily unavailable, please try again",
                _SOON,
            )
            for http in (502, 503)
        ),
        _on(
            504, code_pb2.DEADLINE_EXCEEDED, "UPSTREAM_TIMEOUT", "this took too long, please try again", _SOON
        ),
        Reply(
            "response.code >= 400 && response.code < 500",
            code_pb2.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
            # Why, in Envoy's terms, is in the access log.
            "the request is not well-formed, or has a header or a path that is not allowed",
            400,
        ),
        Reply("response.code >= 500", code_pb2.INTERNAL, "INTERNAL", "internal error", 500),
    ]


def _tokens() -> list[Reply]:
    refused = "response.code_details.startsWith('jwt_authn_access_denied')"
    invalid = (code_pb2.UNAUTHENTICATED, "TOKEN_INVALID", "the token is not valid, please sign in again", 401)
    return [
        Reply(
            _details("Jwt_is_missing", 401), code_pb2.UNAUTHENTICATED, "TOKEN_MISSING", "please sign in", 401
        ),
        Reply(
            _details("Jwt_is_expired", 401),
            code_pb2.UNAUTHENTICATED,
            "TOKEN_EXPIRED",
            "the token has expired",
            401,
        ),
        # Not the token's fault: nobody could say whose keys are good, or not yet.
        Reply(
            _details("Jwks_remote_fetch", 401),
            code_pb2.UNAVAILABLE,
            "KEYS_UNAVAILABLE",
            "tokens can't be checked right now",
            503,
            _SOON,
        ),
        Reply(refused, *invalid),  # 403 for a token made for others
    ]


def _on(http: int, code: int, reason: str, message: str, retry_after: int = 0) -> Reply:
    return Reply(f"response.code == {http}", code, reason, message, http, retry_after)


def _details(part: str, http: int) -> str:
    return f"response.code == {http} && response.code_details.contains('{part}')"
