"""The books of the whole shop: what each service reads of its own, the ledgers of companies, and events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import httpx

from stoa_cart import audit as cart
from stoa_catalog import audit as catalog
from stoa_inventory import audit as inventory
from stoa_notification import audit as notification
from stoa_ops import outboxes, stores
from stoa_ops.audit.event_log import EventBooks, EventLog
from stoa_ops.dead_letters import Fate
from stoa_ops.services import ServiceAudit, audits
from stoa_ops.settings import OperatorSettings
from stoa_order import audit as order
from stoa_payment import audit as payment
from stoa_review import audit as review
from stoa_search import audit as search
from stoa_shipping import audit as shipping

T = TypeVar("T")

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge as the gateway has it, and what was given back of it."""

    charge_id: str
    order_id: str
    amount: Decimal
    refunded: Decimal
    status: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as the mail server has it; `deliveries` is how often it came."""

    message_id: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A parcel as its carrier has it: booked, confirmed or voided; `scans` is how often it was scanned.

    `shipment_id` is what we told the carrier when we booked it.
    """

    carrier: str
    shipment_id: str
    tracking_id: str
    status: str
    scans: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that a service has recorded and not published."""

    events: int
    oldest: timedelta


@dataclass
class ShopBooks:
    """Everything that was read. The stores were read at about the same time, not at one moment.

    `services` has what each service's `audit.read` returned, by its name, `charges` is the gateway's ledger,
    `parcels` that of the carriers, `mails` what the mail server got; None if they don't show that. `backlogs`
    are by service, `dead_letters` the open ones by topic.
    """

    services: Mapping[str, Any] = field(default_factory=dict)
    charges: Sequence[Charge] | None = None
    mails: Sequence[Mail] | None = None
    parcels: Sequence[Parcel] | None = None
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    events: EventBooks = field(default_factory=EventBooks)

    @property
    def order(self) -> order.Books:
        """The order service's."""
        return self._of("order", order.Books({}))

    @property
    def cart(self) -> cart.Books:
        """The cart service's."""
        return self._of("cart", cart.Books([]))

    @property
    def payment(self) -> payment.Books:
        """The payment service's."""
        return self._of("payment", payment.Books([]))

    @property
    def inventory(self) -> inventory.Books:
        """The inventory service's."""
        return self._of("inventory", inventory.Books({}, {}, []))

    @property
    def catalog(self) -> catalog.Books:
        """The catalog service's."""
        return self._of("catalog", catalog.Books())

    @property
    def review(self) -> review.Books:
        """The review service's."""
        return self._of("review", review.Books())

    @property
    def notification(self) -> notification.Books:
        """The notification service's."""
        return self._of("notification", notification.Books([], self.events.began))

    @property
    def search(self) -> search.Books:
        """The search service's: its index."""
        return self._of("search", search.Books({}))

    @property
    def shipping(self) -> shipping.Books:
        """The shipping service's."""
        return self._of("shipping", shipping.Books([]))

    def _of(self, service: str, nothing: T) -> T:
        found: T = self.services.get(service, nothing)
        return found


async def read(settings: OperatorSettings, log: EventLog) -> ShopBooks:
    """Read the books of a shop; raises OSError or an error of a client if a store is down."""
    reading = [audit for audit in audits() if audit.read is not None]
    charges, parcels, mails, waiting, *of_services = await asyncio.gather(
        _charges(settings),
        _parcels(settings),
        _mails(settings),
        outboxes.states(settings),
        *(_own(settings, audit) for audit in reading),
    )
    events = await log.read()
    return ShopBooks(
        services={audit.service.name: books for audit, books in zip(reading, of_services, strict=True)},
        charges=charges,
        mails=mails,
        parcels=parcels,
        backlogs={outbox.service: Backlog(outbox.events, outbox.oldest) for outbox in waiting},
        dead_letters=Counter(letter.topic for letter in log.letters if letter.fate is Fate.OPEN),
        events=events,
    )


async def _own(settings: OperatorSettings, audit: ServiceAudit) -> Any:
    assert audit.read is not None
    async with stores.opened(settings, audit.service) as store:
        return await audit.read(store)


async def _charges(settings: OperatorSettings) -> Sequence[Charge] | None:
    if not settings.payment_gateway_url:
        return None
    charges: dict[str, Any] = {}
    refunded: Counter[str] = Counter()
    async for entry in _ledger(settings.payment_gateway_url, settings.payment_gateway_api_key):
        if entry["kind"] == "charge":
            charges[entry["id"]] = entry
        elif entry["status"] == "succeeded":
            refunded[entry["charge"]] += entry["amount"]
    return [
        Charge(
            charge_id,
            entry["metadata"].get("order_id", ""),
            Decimal(entry["amount"]) / 100,
            Decimal(refunded[charge_id]) / 100,
            entry["status"],
        )
        for charge_id, entry in charges.items()
    ]


async def _parcels(settings: OperatorSettings) -> Sequence[Parcel] | None:
    if not settings.carriers_url:
        return None
    return [
        Parcel(
            entry["carrier"],
            entry["reference"],
            entry["tracking_id"] or "",
            entry["status"],
            entry["scans"],
        )
        async for entry in _ledger(settings.carriers_url, settings.carriers_api_key)
    ]


async def _ledger(url: str, api_key: str) -> AsyncIterator[dict[str, Any]]:
    """Read all entries of a company's ledger, oldest first."""
    async for entry in _entries(url, "/v1/ledger", "data", {"authorization": f"Bearer {api_key}"}):
        yield entry


async def _mails(settings: OperatorSettings) -> Sequence[Mail] | None:
    if not settings.mail_server_url:
        return None
    mails = _entries(settings.mail_server_url, "/api/mails", "mails", order="asc")
    return [Mail(mail["message_id"], mail["deliveries"]) async for mail in mails]


async def _entries(
    url: str, path: str, name: str, headers: Mapping[str, str] | None = None, **query: str
) -> AsyncIterator[dict[str, Any]]:
    """Read a list of a company to its end, page by page."""
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as company:
        more = True
        while more:
            answer = await company.get(path, params={**query, "limit": str(_PAGE)})
            page = answer.raise_for_status().json()
            for entry in page[name]:
                query["after"] = str(entry["id"])
                yield entry
            more = page["has_more"]
