"""Every template in every language, and what may not get through it."""

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest

from stoa_events import (
    InventoryLowStock,
    UserEmailChangeRequested,
    UserPasswordChanged,
)
from stoa_notification import occasions
from stoa_notification.model import (
    LOCALES,
    RULES,
    Channel,
    Notification,
    Occasion,
    Parcel,
    Recipient,
    Template,
    known_locale,
)
from stoa_notification.ports import Content
from stoa_notification.rendering import Templates

from . import examples
from .examples import event

USER = uuid4()
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
_NOTICE: dict[str, Any] = {"user_id": USER, "email": "a@mail.test", "first_name": "Ada", "locale": "en"}
_LOW = InventoryLowStock(variant_id=uuid4(), product_id=uuid4(), available=2, threshold=5)
_DELAYED = occasions.on_its_way(event(examples.shipment_status(USER, "exception")))
_TODAY = occasions.on_its_way(event(examples.shipment_status(USER, "out_for_delivery")))
_IN_TRANSIT = occasions.on_its_way(event(examples.shipment_status(USER, "in_transit")))
assert _IN_TRANSIT
_PARCEL = Parcel(shipment_id=uuid4(), tracking_url="https://carrier.test/1", estimated_delivery=examples.AT)
_SHIPPED = replace(_IN_TRANSIT, facts={**_IN_TRANSIT.facts, **_PARCEL.facts}, shipment_id=None)
assert _DELAYED
assert _TODAY
OCCASIONS: list[Occasion] = [
    occasions.registered(event(examples.registered(USER))),
    occasions.link_requested(event(examples.verification(USER)), Template.VERIFY_EMAIL),
    occasions.link_requested(event(examples.password_reset(USER, NOW)), Template.PASSWORD_RESET),
    occasions.account_changed(event(UserEmailChangeRequested(**_NOTICE)), Template.EMAIL_CHANGE),
    occasions.account_changed(event(UserPasswordChanged(**_NOTICE)), Template.PASSWORD_CHANGED),
    occasions.confirmed(event(examples.confirmed(USER))),
    occasions.cancelled(event(examples.cancelled(USER))),
    occasions.payment_failed(event(examples.payment_failed(USER))),
    _SHIPPED,
    _DELAYED,
    _TODAY,
    occasions.delivered(event(examples.delivered(USER))),
    occasions.return_requested(event(examples.return_requested(USER))),
    occasions.return_decided(event(examples.return_decided(USER))),
    occasions.return_decided(event(examples.return_decided(USER, "rejected"))),
    occasions.returned(event(examples.returned(USER))),
    occasions.refunded(event(examples.refunded(USER))),
    occasions.low_stock(event(_LOW), Recipient("staff@shop.test")),
]


class Page(HTMLParser):
    """The links of a page, and the elements that it leaves open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(templates: Templates, occasion: Occasion, channel: Channel, recipient: Recipient) -> Content:
    notification = Notification.of(occasion, channel, recipient, "c", NOW)
    content = templates.render(notification)
    assert templates.subject(notification) == content.subject
    return content


def test_there_is_an_occasion_for_every_template() -> None:
    assert {occasion.template for occasion in OCCASIONS} == {*Template}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("occasion", OCCASIONS, ids=lambda occasion: str(occasion.template))
def test_every_text_is_whole_in_every_language(templates: Templates, occasion: Occasion, locale: str) -> None:
    for channel in RULES[occasion.template].channels:
        content = rendered(templates, occasion, channel, Recipient("ada@mail.test", "Ada", locale))
        assert content.link.startswith("https://shop.test/")
        if channel is not Channel.EMAIL:
            assert 0 < len(content.short) <= 160, "an SMS is one"
            continue
        assert content.subject
        assert "\n" not in content.subject
        assert ("Hello Ada," if locale == "en" else "Hallo Ada,") in content.text
        for left_over in ("{{", "{%", "None", "Undefined", "\n\n\n"):
            assert left_over not in content.text
        page = Page(content.html)
        assert page.open == []
        assert all(link.startswith("https://") for link in page.links)
        assert f'lang="{locale}"' in content.html


def test_the_languages_differ(templates: Templates) -> None:
    for occasion in OCCASIONS:
        english, german = (
            rendered(
                templates, occasion, RULES[occasion.template].channels[0], Recipient("a@b.c", "", locale)
            )
            for locale in LOCALES
        )
        assert english.subject != german.subject


def test_amounts_and_days_are_written_as_in_the_language(templates: Templates) -> None:
    confirmed = occasions.confirmed(event(examples.confirmed(USER)))
    german = rendered(templates, confirmed, Channel.EMAIL, Recipient("a@b.c", "", "de"))
    assert "300,60\N{NO-BREAK SPACE}$" in german.text
    english = rendered(templates, _SHIPPED, Channel.EMAIL, Recipient("a@b.c", "", "en"))
    assert "Saturday, November 28, 2026" in english.text


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({}, "Ada Lovelace\n12 Analytical St\nLondon\nN1 7AA\nVereinigtes Königreich"),
        (
            {"city": "Portland", "region": "ME", "postal_code": "04101", "country": "US", "line2": "Floor 2"},
            "Ada Lovelace\n12 Analytical St\nFloor 2\nPortland, ME 04101\nVereinigte Staaten",
        ),
        ({"city": "Berlin", "postal_code": "10115", "country": "DE"}, "\n10115 Berlin\nDeutschland"),
    ],
)
def test_an_address_is_written_as_in_its_country(
    templates: Templates, changes: dict[str, str], written: str
) -> None:
    order = replace(examples.confirmed(USER), shipping_address=replace(examples.ADDRESS, **changes))
    mail = rendered(templates, occasions.confirmed(event(order)), Channel.EMAIL, Recipient("a@b.c", "", "de"))
    assert written in mail.text
    for line in written.strip().splitlines():
        assert line in mail.html


def test_what_users_write_is_no_markup_and_no_template(templates: Templates) -> None:
    evil = Recipient("a@b.c", "<script>{{ shop_url }}</script>", "en")
    content = rendered(templates, OCCASIONS[0], Channel.EMAIL, evil)
    assert "script" not in Page(content.html).tags
    assert "{{ shop_url }}" in content.text


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada", "Hello Ada,"),
        ("J. R. R.", "Hello J. R. R.,"),
        ("J.R.R.", "Hello J.R.R.,"),
        ("O’Brien-Müller 3rd", "Hello O’Brien-Müller 3rd,"),
        ("you won, see https://evil.example/a", "Hello,"),
        ("WWW.evil", "Hello,"),
        ("see evil.example", "Hello,"),
        ("write to me@evil", "Hello,"),
        ("bit.ly/x", "Hello,"),
        ("\u202eadA", "Hello,"),
    ],
)
def test_nobody_sends_a_link_in_the_name_of_the_shop(templates: Templates, name: str, greeting: str) -> None:
    """The attack: an account is opened for somebody else's address, under a name that is a message."""
    recipient = Recipient("ada@mail.test", name)
    content = rendered(templates, OCCASIONS[0], Channel.EMAIL, recipient)
    assert content.text.splitlines()[0] == greeting
    assert "evil" not in content.text + content.html


def test_who_may_choose_is_told_where(templates: Templates) -> None:
    ada = Recipient("a@b.c", "Ada", "en")
    for occasion in OCCASIONS:
        if Channel.EMAIL in occasion.rule.channels:
            content = rendered(templates, occasion, Channel.EMAIL, ada)
            choosable = occasion.rule.kind in ("orders", "shipping")
            assert ("/account/notifications" in content.text) == choosable
            assert ("/account/notifications" in content.html) == choosable


@pytest.mark.parametrize(
    ("asked", "spoken"), [("de", "de"), ("de-AT", "de"), ("DE_ch", "de"), ("fr", "en"), ("", "en")]
)
def test_a_language_without_templates_is_answered_in_english(asked: str, spoken: str) -> None:
    assert known_locale(asked) == spoken
