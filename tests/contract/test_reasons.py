"""The reasons that clients branch on, with their codes: a reason that changes breaks them."""

import importlib
import pkgutil
from collections.abc import Iterator

import stoa_chassis
from stoa_chassis.errors import Code, DomainError, RemoteError
from stoa_gateway.replies import replies
from stoa_services import SERVICES

OF_SERVICES = {
    "ADDRESS_BOOK_FULL": Code.FAILED_PRECONDITION,
    "ADDRESS_NOT_FOUND": Code.NOT_FOUND,
    "ALREADY_REVIEWED": Code.ALREADY_EXISTS,
    "BAD_SIGNATURE": Code.UNAUTHENTICATED,
    "CARRIER_SILENT": Code.UNAVAILABLE,
    "CART_BUSY": Code.ABORTED,
    "CART_CHANGED": Code.ABORTED,
    "CART_CLAIM_TOO_OLD": Code.UNAVAILABLE,
    "CART_EMPTY": Code.ABORTED,
    "CART_FULL": Code.FAILED_PRECONDITION,
    "CART_ITEM_NOT_FOUND": Code.NOT_FOUND,
    "CHARGE_MISMATCH": Code.FAILED_PRECONDITION,
    "CONTACT_ERASED": Code.NOT_FOUND,
    "EMAIL_TAKEN": Code.ALREADY_EXISTS,
    "EMAIL_VERIFIED": Code.FAILED_PRECONDITION,
    "ETAG_MISMATCH": Code.ABORTED,
    "FOREIGN_CURRENCY": Code.FAILED_PRECONDITION,
    "GUEST_MERGED": Code.FAILED_PRECONDITION,
    "INDEX_MISSING": Code.UNAVAILABLE,
    "INVALID_CREDENTIALS": Code.UNAUTHENTICATED,
    "INVALID_REFRESH_TOKEN": Code.UNAUTHENTICATED,
    "ITEMS_UNAVAILABLE": Code.FAILED_PRECONDITION,
    "ITEM_UNAVAILABLE": Code.FAILED_PRECONDITION,
    "LAST_ADMIN": Code.FAILED_PRECONDITION,
    "NOTHING_TO_REFUND": Code.FAILED_PRECONDITION,
    "NOT_AN_ADMIN_ANY_MORE": Code.PERMISSION_DENIED,
    "NOT_A_BUYER": Code.PERMISSION_DENIED,
    "NOT_RESERVED": Code.FAILED_PRECONDITION,
    "NOT_THE_AUTHOR": Code.PERMISSION_DENIED,
    "NO_LABEL": Code.FAILED_PRECONDITION,
    "ORDER_NOT_CANCELLABLE": Code.ABORTED,
    "ORDER_NOT_FOUND": Code.NOT_FOUND,
    "ORDER_NOT_RETURNABLE": Code.FAILED_PRECONDITION,
    "OUT_OF_STOCK": Code.FAILED_PRECONDITION,
    "OWN_REVIEW": Code.PERMISSION_DENIED,
    "PAYMENT_FAILED": Code.FAILED_PRECONDITION,
    "PAYMENT_HELD": Code.FAILED_PRECONDITION,
    "PAYMENT_NOT_FOUND": Code.NOT_FOUND,
    "PAYMENT_PENDING": Code.FAILED_PRECONDITION,
    "PAYMENT_RELEASED": Code.FAILED_PRECONDITION,
    "PRICE_CHANGED": Code.FAILED_PRECONDITION,
    "PRODUCT_NOT_FOUND": Code.NOT_FOUND,
    "REFUND_TOO_LARGE": Code.FAILED_PRECONDITION,
    "REPLIES_FULL": Code.FAILED_PRECONDITION,
    "REPLY_NOT_FOUND": Code.NOT_FOUND,
    "REQUEST_ID_USED": Code.ALREADY_EXISTS,
    "REQUEST_IN_PROGRESS": Code.ABORTED,
    "RETURN_NOT_FOUND": Code.NOT_FOUND,
    "RETURN_NOT_OPEN": Code.FAILED_PRECONDITION,
    "RETURN_WINDOW_CLOSED": Code.FAILED_PRECONDITION,
    "REVIEW_NOT_FOUND": Code.NOT_FOUND,
    "REVIEW_NOT_PUBLISHED": Code.FAILED_PRECONDITION,
    "SESSION_NOT_FOUND": Code.NOT_FOUND,
    "SHIPMENT_NOT_FOUND": Code.NOT_FOUND,
    "SHIPMENT_UNDER_WAY": Code.FAILED_PRECONDITION,
    "SIGN_IN_BUSY": Code.RESOURCE_EXHAUSTED,
    "SIGN_IN_LOCKED": Code.RESOURCE_EXHAUSTED,
    "SKU_TAKEN": Code.ALREADY_EXISTS,
    "STAFF_PROTECTED": Code.PERMISSION_DENIED,
    "STOCK_RESERVED": Code.FAILED_PRECONDITION,
    "STOCK_TOO_LARGE": Code.FAILED_PRECONDITION,
    "TOO_HEAVY": Code.FAILED_PRECONDITION,
    "TOO_MANY_REQUESTS": Code.RESOURCE_EXHAUSTED,
    "TOO_MANY_RETURNS": Code.FAILED_PRECONDITION,
    "USER_NOT_FOUND": Code.NOT_FOUND,
    "VARIANT_NOT_FOUND": Code.NOT_FOUND,
    "VARIANT_WITHDRAWN": Code.FAILED_PRECONDITION,
    "VOTES_FULL": Code.FAILED_PRECONDITION,
}
OF_THE_CHASSIS = {
    "ACCOUNT_NEEDED": Code.PERMISSION_DENIED,
    "CONCURRENT_CHANGES": Code.ABORTED,
    "DEADLINE_EXCEEDED": Code.DEADLINE_EXCEEDED,
    "DEPENDENCY_DOWN": Code.UNAVAILABLE,
    "INTERNAL": Code.INTERNAL,
    "KEYS_UNAVAILABLE": Code.UNAVAILABLE,
    "NOT_OWNER": Code.PERMISSION_DENIED,
    "OVERLOADED": Code.RESOURCE_EXHAUSTED,
    "PEER_UNKNOWN": Code.PERMISSION_DENIED,
    "REQUEST_ID_REUSED": Code.ALREADY_EXISTS,
    "ROLE_NEEDED": Code.PERMISSION_DENIED,
    "SERVICES_ONLY": Code.PERMISSION_DENIED,
    "SERVICE_NOT_ALLOWED": Code.PERMISSION_DENIED,
    "STAFF_ONLY": Code.PERMISSION_DENIED,
    "SUBJECT_UNUSABLE": Code.PERMISSION_DENIED,
    "TOKEN_EXPIRED": Code.UNAUTHENTICATED,
    "TOKEN_INVALID": Code.UNAUTHENTICATED,
    "TOKEN_MISSING": Code.UNAUTHENTICATED,
    "UNIMPLEMENTED": Code.UNIMPLEMENTED,
}
OF_THE_EDGE = {
    ("BODY_TOO_LARGE", 413): Code.INVALID_ARGUMENT,
    ("HEADERS_TOO_LARGE", 431): Code.INVALID_ARGUMENT,
    ("INTERNAL", 500): Code.INTERNAL,
    ("KEYS_UNAVAILABLE", 503): Code.UNAVAILABLE,
    ("MALFORMED_REQUEST", 400): Code.INVALID_ARGUMENT,
    ("METHOD_NOT_ALLOWED", 405): Code.UNIMPLEMENTED,
    ("OVERLOADED", 429): Code.RESOURCE_EXHAUSTED,
    ("RATE_LIMITED", 429): Code.RESOURCE_EXHAUSTED,
    ("REQUEST_TIMEOUT", 408): Code.DEADLINE_EXCEEDED,
    ("ROUTE_NOT_FOUND", 404): Code.NOT_FOUND,
    ("TOKEN_EXPIRED", 401): Code.UNAUTHENTICATED,
    ("TOKEN_INVALID", 401): Code.UNAUTHENTICATED,
    ("TOKEN_MISSING", 401): Code.UNAUTHENTICATED,
    ("UPSTREAM_TIMEOUT", 504): Code.DEADLINE_EXCEEDED,
    ("UPSTREAM_UNAVAILABLE", 502): Code.UNAVAILABLE,
    ("UPSTREAM_UNAVAILABLE", 503): Code.UNAVAILABLE,
}


def test_the_reasons_of_services_are_these() -> None:
    own = {each.reason: each.code for name in SERVICES for each in declared(f"stoa_{name}")}
    own.pop("INVALID_ARGUMENT", None)  # what is only another way to make it
    assert own == OF_SERVICES


def test_the_reasons_of_the_chassis_are_these() -> None:
    ready_made = {code.name for code in Code}  # the bases, whose reasons are their codes
    own = {each.reason: each.code for each in declared(stoa_chassis.__name__)}
    assert {reason: code for reason, code in own.items() if reason in OF_THE_CHASSIS} == OF_THE_CHASSIS
    assert own.keys() - OF_THE_CHASSIS.keys() <= ready_made
    assert all(code.name == reason for reason, code in own.items() if reason in ready_made)


def test_the_reasons_of_the_edge_are_these() -> None:
    told = {(reply.reason, reply.http): Code(reply.code) for reply in replies(1)}
    assert told == OF_THE_EDGE


def declared(package: str) -> Iterator[type[DomainError]]:
    """The errors that the modules of a package declare."""
    top = importlib.import_module(package)
    for found in pkgutil.walk_packages(top.__path__, f"{package}."):
        if not found.name.endswith(("__main__", ".testing", ".testing_stores")):
            importlib.import_module(found.name)
    yield from (each for each in subclasses(DomainError) if each.__module__.startswith(f"{package}."))


def subclasses(of: type[DomainError]) -> Iterator[type[DomainError]]:
    """All classes derived from one, but RemoteError: its reason is another's."""
    for each in of.__subclasses__():
        if each is not RemoteError:
            yield each
        yield from subclasses(each)
