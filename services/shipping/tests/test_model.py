"""The rules that shipments keep: when one is sent, by whom, and what a scan can make of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from stoa_events import ShipmentCreated, ShipmentStatusUpdated
from stoa_shipping.model import (
    SCANNED,
    Address,
    BookingStatus,
    Label,
    Shipment,
    ShipmentUnderWay,
    Status,
    TrackingEvent,
    credible,
)

from .conftest import ADDRESS, CARRIERS, FIRST, NOW, RETRY, SECOND, THIRD, a_parcel, scan

LABEL = Label("1Z1", "https://ups.example/1Z1", NOW + timedelta(days=4))
OTHER_LABEL = Label("2", "https://fedex.example/2", NOW + timedelta(days=4))
NEXT_LOOK = NOW + timedelta(minutes=1)
USER = uuid4()


def a_shipment() -> Shipment:
    return Shipment.begin(uuid4(), "the request", NOW)


def pending() -> Shipment:
    shipment = a_shipment()
    shipment.on_payment_successful(CARRIERS, NOW)
    shipment.on_order_confirmed(USER, a_parcel(), CARRIERS, NOW)
    return shipment


def created() -> Shipment:
    shipment = pending()
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    shipment.on_confirmed(FIRST, NEXT_LOOK, NOW)
    return shipment


def scanned(*statuses: Status) -> Shipment:
    shipment = created()
    for minute, status in enumerate(statuses, 1):
        shipment.on_scanned(FIRST, [scan(status, minute)], NEXT_LOOK, NOW)
    return shipment


def bookings(shipment: Shipment) -> dict[str, str]:
    return {each.carrier: each.status for each in shipment.bookings}


def state(shipment: Shipment) -> tuple[Status, bool, datetime | None]:
    return shipment.status, shipment.stopping, shipment.due_at


def told(shipment: Shipment) -> list[str]:
    return [each.status if isinstance(each, ShipmentStatusUpdated) else "created" for each in shipment.events]


def confirm(shipment: Shipment) -> None:
    shipment.on_order_confirmed(USER, a_parcel(), CARRIERS, NOW)


def pay(shipment: Shipment) -> None:
    shipment.on_payment_successful(CARRIERS, NOW)


def stop(shipment: Shipment) -> None:
    shipment.stop(NOW)


def test_of_a_new_shipment_nothing_is_known_but_its_order() -> None:
    shipment = a_shipment()
    assert shipment == Shipment(
        shipment_id=shipment.shipment_id,
        order_id=shipment.order_id,
        status=Status.WAITING,
        correlation_id="the request",
        created_at=NOW,
        updated_at=NOW,
        user_id=None,
        parcel=None,
        paid=False,
        carrier="",
        label=None,
        stopping=False,
        problem="",
        erased=False,
        bookings=(),
        history=(),
        attempts=0,
        due_at=None,
    )
    assert not shipment.is_visible


def test_a_shipment_is_the_same_however_it_is_stored_and_whatever_is_still_to_be_told() -> None:
    shipment = created()
    assert shipment.events
    assert replace(shipment, revision=7, events=[]) == shipment


def test_it_is_shown_from_when_its_order_is_confirmed_and_paid_and_began_then() -> None:
    shipment, later = a_shipment(), NOW + timedelta(hours=1)
    confirm(shipment)
    assert not shipment.is_visible
    shipment.on_payment_successful(CARRIERS, later)
    assert shipment.is_visible
    assert shipment.created_at == later
    never = a_shipment()
    never.stop(NOW)
    never.on_user_erased(NOW)
    assert (never.status, never.parcel, never.is_visible) == (Status.STOPPED, None, False)


def test_what_is_due_is_left_to_one_until_its_lease_lapses() -> None:
    shipment, waiting = pending(), a_shipment()
    assert waiting.claim(RETRY, NOW) is False
    assert not shipment.claim(RETRY, NOW - timedelta(seconds=1))
    assert shipment.claim(RETRY, NOW)
    assert (shipment.attempts, shipment.due_at) == (1, NOW + RETRY.lease)
    assert not shipment.claim(RETRY, NOW)
    assert (shipment.attempts, waiting.attempts) == (1, 0)


@pytest.mark.parametrize("order", list(permutations([confirm, pay])))
def test_it_is_sent_when_its_order_is_confirmed_and_paid_in_either_order(
    order: tuple[Callable[[Shipment], None], ...],
) -> None:
    shipment = a_shipment()
    order[0](shipment)
    assert (shipment.status, shipment.asking, shipment.due_at) == (Status.WAITING, None, None)
    order[1](shipment)
    assert (shipment.status, shipment.asking, shipment.due_at) == (Status.PENDING, FIRST, NOW)


@pytest.mark.parametrize("order", list(permutations([confirm, pay, stop])))
def test_what_is_stopped_is_not_sent_whenever_that_is_heard(
    order: tuple[Callable[[Shipment], None], ...],
) -> None:
    shipment = a_shipment()
    for each in order:
        each(shipment)
    assert shipment.status is Status.STOPPED
    assert shipment.asking is None
    assert not shipment.to_confirm
    assert told(shipment) == []


def test_hearing_again_changes_nothing() -> None:
    shipment = pending()
    before = shipment.bookings, shipment.parcel, shipment.user_id
    shipment.on_order_confirmed(uuid4(), a_parcel(), (THIRD,), NOW)
    shipment.on_payment_successful((THIRD,), NOW)
    assert (shipment.bookings, shipment.parcel, shipment.user_id) == before


def test_a_booking_is_told_once_and_then_confirmed() -> None:
    shipment = pending()
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    assert shipment.to_confirm
    assert not shipment.is_followed
    assert shipment.due_at == NOW + RETRY.lease
    assert shipment.events == [
        ShipmentCreated(
            shipment_id=shipment.shipment_id,
            order_id=shipment.order_id,
            user_id=USER,
            carrier=FIRST,
            tracking_id=LABEL.tracking_id,
            tracking_url=LABEL.tracking_url,
            shipping_method="standard",
            estimated_delivery=LABEL.estimated_delivery,
        )
    ]
    shipment.on_confirmed(FIRST, NEXT_LOOK, NOW)
    shipment.on_confirmed(FIRST, NEXT_LOOK, NOW)
    assert not shipment.to_confirm
    assert shipment.is_followed
    assert (bookings(shipment), shipment.due_at) == ({FIRST: "confirmed"}, NEXT_LOOK)


def test_a_carrier_that_does_not_book_in_time_shares_the_work_with_the_next() -> None:
    shipment = pending()
    later = NOW + RETRY.takeover
    shipment.attempts = 2
    assert not shipment.is_overdue(RETRY, later)
    shipment.attempts = 3
    assert not shipment.is_overdue(RETRY, later - timedelta(seconds=1))
    assert shipment.is_overdue(RETRY, later)
    asked = []
    for _ in range(4):
        shipment.ask_next(CARRIERS, later)
        asked.append(shipment.asking)
    assert asked == [SECOND, THIRD, FIRST, SECOND]
    assert not shipment.is_overdue(RETRY, later)
    assert set(bookings(shipment).values()) == {"asked"}


@pytest.mark.parametrize("first", [FIRST, SECOND])
def test_of_two_that_book_the_first_wins_and_the_other_is_voided(first: str) -> None:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    late = SECOND if first == FIRST else FIRST
    shipment.on_booked(first, LABEL, RETRY, NOW)
    assert shipment.to_void == [late]
    shipment.on_voided(late, NOW)
    assert shipment.to_void == []
    # Its answer was on its way for long: there is a booking after all.
    shipment.on_booked(late, OTHER_LABEL, RETRY, NOW)
    assert (shipment.carrier, shipment.label) == (first, LABEL)
    assert (shipment.to_void, shipment.due_at) == ([late], NOW)
    shipment.on_voided(late, NOW)
    assert bookings(shipment) == {first: "booked", late: "voided"}
    assert told(shipment) == ["created"]


def test_after_a_carrier_that_is_not_offered_any_more_the_first_of_the_others_is_asked() -> None:
    shipment = pending()
    shipment.ask_next((SECOND, THIRD), NOW)
    assert shipment.asking == SECOND


def test_a_carrier_that_says_much_is_quoted_in_part() -> None:
    shipment = pending()
    shipment.on_refused(FIRST, "too far " * 1000, CARRIERS, RETRY, NOW)
    assert shipment.problem.startswith("ups: too far too far")
    assert len(shipment.problem) == 300


def test_a_carrier_that_refuses_is_not_asked_again_while_another_may_carry_it() -> None:
    shipment = pending()
    shipment.on_refused(FIRST, "too far", CARRIERS, RETRY, NOW)
    assert (shipment.asking, shipment.problem, shipment.due_at) == (SECOND, "ups: too far", NOW)
    shipment.ask_next(CARRIERS, NOW)
    shipment.ask_next(CARRIERS, NOW)
    assert shipment.asking == SECOND
    shipment.on_booked(SECOND, LABEL, RETRY, NOW)
    assert shipment.problem == ""
    assert shipment.to_void == [THIRD]


def test_what_all_refuse_says_why_and_is_tried_again_after_a_while() -> None:
    shipment = pending()
    for carrier in CARRIERS:
        shipment.on_refused(carrier, "too far", CARRIERS, RETRY, NOW)
    assert (shipment.status, shipment.problem) == (Status.PENDING, "dhl: too far")
    assert (shipment.asking, shipment.due_at) == (FIRST, NOW + RETRY.reconsider)
    assert not shipment.is_overdue(RETRY, NOW + RETRY.reconsider)
    # One that was asked before books now: nobody knew.
    shipment.on_booked(THIRD, LABEL, RETRY, NOW)
    assert (shipment.carrier, shipment.to_void) == (THIRD, [FIRST])


def test_what_all_refused_is_offered_to_each_of_them_again() -> None:
    shipment, asked = pending(), []
    for carrier in (*CARRIERS, *CARRIERS):
        asked.append(shipment.asking)
        shipment.on_refused(carrier, "too far", CARRIERS, RETRY, NOW)
    assert asked == [*CARRIERS, *CARRIERS]


def test_a_refusal_that_comes_late_changes_nothing() -> None:
    shipment = created()
    shipment.on_refused(FIRST, "too far", CARRIERS, RETRY, NOW)
    assert (bookings(shipment), shipment.problem) == ({FIRST: "confirmed"}, "")


def test_each_step_has_attempts_of_its_own() -> None:
    shipment, left = pending(), []
    acts: list[Callable[[], object]] = [
        lambda: shipment.ask_next(CARRIERS, NOW),
        lambda: shipment.on_booked(FIRST, LABEL, RETRY, NOW),
        lambda: shipment.on_confirmed(FIRST, NEXT_LOOK, NOW),
        lambda: shipment.stop(NOW),
        lambda: shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW),
    ]
    for act in acts:
        shipment.attempts = 3
        act()
        left.append(shipment.attempts)
    stopped = pending()
    stopped.attempts = 3
    stopped.stop(NOW)
    assert [*left, stopped.attempts] == [0] * 6


def test_what_kept_it_from_being_sent_is_no_problem_any_more_when_it_is_stopped() -> None:
    shipment = pending()
    shipment.on_refused(FIRST, "too far", CARRIERS, RETRY, NOW)
    shipment.stop(NOW)
    assert shipment.problem == ""


def test_stopped_before_a_carrier_has_booked_it_voids_what_may_come() -> None:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    shipment.stop(NOW)
    assert shipment.status is Status.STOPPED
    assert shipment.to_void == [FIRST, SECOND]
    assert shipment.due_at == NOW
    for carrier in (FIRST, SECOND):
        shipment.on_voided(carrier, NOW)
    assert not shipment.to_void
    assert state(shipment) == (Status.STOPPED, False, None)
    assert told(shipment) == []


def test_the_answer_to_a_booking_that_comes_after_the_stop_is_voided() -> None:
    shipment = pending()
    shipment.stop(NOW)
    shipment.on_voided(FIRST, NOW)
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    assert (shipment.status, shipment.carrier, shipment.to_void) == (Status.STOPPED, "", [FIRST])


def test_stopping_a_booked_one_is_up_to_its_carrier() -> None:
    shipment = created()
    shipment.stop(NOW)
    shipment.stop(NOW)
    assert (shipment.status, shipment.stopping, shipment.to_void) == (Status.CREATED, True, [FIRST])
    assert shipment.due_at == NOW
    assert not shipment.is_followed
    shipment.on_voided(FIRST, NOW)
    shipment.on_voided(FIRST, NOW)
    assert state(shipment) == (Status.STOPPED, False, None)
    assert told(shipment) == ["created", "stopped"]
    assert shipment.history == (
        TrackingEvent(Status.CREATED, "The label was made.", "", NOW),
        TrackingEvent(Status.STOPPED, "It is not sent.", "", NOW),
    )
    shipment.stop(NOW)
    assert told(shipment) == ["created", "stopped"]
    before = replace(shipment)
    shipment.on_voided(FIRST, NOW + timedelta(hours=1))
    assert shipment == before


def test_one_that_is_to_be_stopped_is_not_confirmed() -> None:
    shipment = pending()
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    shipment.stop(NOW)
    assert not shipment.to_confirm
    assert shipment.to_void == [FIRST]


def test_when_the_carrier_has_it_it_is_not_stopped_and_followed_again() -> None:
    shipment = created()
    shipment.stop(NOW)
    shipment.on_under_way(FIRST, NOW)
    assert (shipment.status, shipment.stopping, shipment.due_at) == (Status.CREATED, False, NOW)
    assert shipment.is_followed
    shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW)
    with pytest.raises(ShipmentUnderWay) as refused:
        shipment.stop(NOW)
    assert refused.value.metadata == {"status": "in_transit"}


def test_that_a_carrier_has_it_settles_what_it_was_asked_for_and_no_more() -> None:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    shipment.stop(NOW)
    shipment.on_under_way(SECOND, NOW)
    assert (shipment.stopping, shipment.to_void) == (True, [FIRST, SECOND])
    shipment.on_under_way(FIRST, NOW)
    assert (shipment.stopping, shipment.to_confirm) == (False, False)
    assert bookings(shipment) == {FIRST: "confirmed", SECOND: "unwanted"}
    followed = created()
    followed.on_under_way(FIRST, NOW)
    assert followed.due_at == NEXT_LOOK


def test_what_was_scanned_is_not_stopped_by_a_carrier_that_says_it_voided_it() -> None:
    shipment = scanned(Status.IN_TRANSIT)
    shipment.on_voided(FIRST, NOW)
    assert shipment.status is Status.IN_TRANSIT
    assert shipment.due_at == NEXT_LOOK


def test_a_booking_says_since_when_it_is_so_however_often_that_is_heard() -> None:
    shipment, later = created(), NOW + timedelta(hours=1)
    shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, later)
    assert [each.at for each in shipment.bookings] == [NOW]


def test_what_is_said_to_have_happened_more_than_a_day_from_now_is_left_out() -> None:
    day = 24 * 60
    scans = [scan(Status.IN_TRANSIT, minutes) for minutes in (-day, 0, day, day + 1)]
    assert credible(scans, NOW) == tuple(scans[:3])


def test_a_scan_counts_though_the_carriers_clock_is_behind_ours() -> None:
    shipment = created()
    shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT, -5)], NEXT_LOOK, NOW)
    assert shipment.status is Status.IN_TRANSIT


def test_a_scan_ends_the_wish_to_stop_it() -> None:
    shipment = created()
    shipment.stop(NOW)
    assert shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW)
    assert (shipment.status, shipment.stopping, shipment.to_void) == (Status.IN_TRANSIT, False, [])


def test_a_scan_shows_that_it_was_collected_whatever_became_of_the_confirmation() -> None:
    shipment = pending()
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW)
    assert not shipment.to_confirm
    assert bookings(shipment) == {FIRST: "confirmed"}


JOURNEY = (Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_scans_in_any_order_give_the_same_end_and_never_turn_back(order: tuple[int, ...]) -> None:
    shipment = created()
    scans = [scan(status, minute) for minute, status in enumerate(JOURNEY, 1)]
    seen = [shipment.status]
    for at in (*order, *order):
        shipment.on_scanned(FIRST, [scans[at]], NEXT_LOOK, NOW)
        seen.append(shipment.status)
    assert shipment.status is Status.DELIVERED
    assert [each.status for each in shipment.history] == [Status.CREATED, *JOURNEY]
    assert seen == sorted(seen, key=list(Status).index)
    assert len(told(shipment)) == len(set(told(shipment)))
    assert shipment.due_at is None


def test_several_scans_at_once_are_told_one_by_one() -> None:
    shipment = created()
    scans = [scan(status, minute) for minute, status in enumerate(JOURNEY, 1)]
    assert shipment.on_scanned(FIRST, reversed(scans), NEXT_LOOK, NOW)
    assert told(shipment) == ["created", *JOURNEY]
    assert shipment.on_scanned(FIRST, scans, NEXT_LOOK, NOW) is False


def test_scans_of_the_same_moment_are_taken_in_the_order_in_which_they_must_have_been() -> None:
    shipment = created()
    shipment.on_scanned(FIRST, [scan(status, 1) for status in reversed(JOURNEY)], NEXT_LOOK, NOW)
    assert told(shipment) == ["created", *JOURNEY]


def test_trouble_passes_unless_it_was_over_before_it_was_told() -> None:
    shipment = scanned(Status.IN_TRANSIT, Status.EXCEPTION)
    seen = [shipment.status]
    for late in (
        scan(Status.IN_TRANSIT, 0, "An old one"),
        scan(Status.IN_TRANSIT, 5),
        scan(Status.EXCEPTION, 4),
    ):
        shipment.on_scanned(FIRST, [late], NEXT_LOOK, NOW)
        seen.append(shipment.status)
    assert seen == [Status.EXCEPTION, Status.EXCEPTION, Status.IN_TRANSIT, Status.IN_TRANSIT]


@pytest.mark.parametrize("end", [Status.DELIVERED, Status.RETURNED])
@pytest.mark.parametrize("after", sorted(SCANNED))
def test_after_the_end_nothing_changes_any_more(end: Status, after: Status) -> None:
    shipment = scanned(Status.IN_TRANSIT, end)
    before = told(shipment)
    shipment.on_scanned(FIRST, [scan(after, 60)], NEXT_LOOK, NOW)
    assert (shipment.status, told(shipment), shipment.due_at) == (end, before, None)


def test_the_scans_of_another_carrier_are_not_its_own() -> None:
    shipment = created()
    assert shipment.on_scanned(SECOND, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW) is False
    assert shipment.status is Status.CREATED


def test_a_scan_of_what_was_stopped_is_not_believed() -> None:
    shipment = created()
    shipment.stop(NOW)
    shipment.on_voided(FIRST, NOW)
    assert shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NEXT_LOOK, NOW) is False
    assert shipment.status is Status.STOPPED


def test_the_work_for_others_goes_on_when_it_is_delivered() -> None:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    shipment.on_booked(SECOND, LABEL, RETRY, NOW)
    shipment.on_scanned(SECOND, [scan(Status.DELIVERED)], NEXT_LOOK, NOW)
    assert (shipment.to_void, shipment.due_at) == ([FIRST], NOW)
    shipment.on_voided(FIRST, NOW)
    assert shipment.due_at is None


def test_a_status_is_published_with_all_that_is_known_of_it() -> None:
    shipment = created()
    happened = TrackingEvent(Status.IN_TRANSIT, "Picked up", "Austin", NOW)
    shipment.on_scanned(FIRST, [happened], NEXT_LOOK, NOW)
    assert shipment.events[-1] == ShipmentStatusUpdated(
        shipment_id=shipment.shipment_id,
        order_id=shipment.order_id,
        user_id=USER,
        carrier=FIRST,
        tracking_id=LABEL.tracking_id,
        status="in_transit",
        description="Picked up",
        location="Austin",
        at=NOW,
    )


@pytest.mark.parametrize("before", [True, False])
def test_a_guests_parcel_becomes_the_accounts(before: bool) -> None:
    shipment, account = a_shipment(), UUID(int=7)
    if before:
        shipment.on_buyer_changed(account, NOW)
    pay(shipment)
    confirm(shipment)
    if not before:
        shipment.on_buyer_changed(account, NOW)
    assert shipment.user_id == account
    shipment.on_booked(FIRST, LABEL, RETRY, NOW)
    assert shipment.events[0].user_id == account


def test_an_address_is_forgotten_once_the_parcel_of_an_erased_account_is_there() -> None:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    shipment.on_booked(SECOND, LABEL, RETRY, NOW)
    shipment.on_user_erased(NOW)
    needed = []
    for act in (
        lambda: shipment.on_scanned(SECOND, [scan(Status.IN_TRANSIT, 1)], NEXT_LOOK, NOW),
        lambda: shipment.on_scanned(SECOND, [scan(Status.DELIVERED, 2)], NEXT_LOOK, NOW),
        lambda: shipment.on_voided(FIRST, NOW),
    ):
        assert shipment.parcel is not None
        needed.append(shipment.parcel.destination == ADDRESS)
        act()
    assert needed == [True, True, True]
    assert shipment.parcel is not None
    assert shipment.parcel.destination == Address("", "", "", "", "", "", "US")


@pytest.mark.parametrize("end", [Status.DELIVERED, Status.RETURNED])
def test_what_is_over_is_forgotten_at_once(end: Status) -> None:
    shipment = scanned(Status.IN_TRANSIT, end)
    shipment.on_user_erased(NOW)
    assert shipment.parcel is not None
    assert shipment.parcel.destination.recipient == ""


def test_every_status_of_a_booking_is_one_of_these() -> None:
    assert [*BookingStatus] == ["asked", "booked", "confirmed", "refused", "unwanted", "voided"]


def test_shipments_are_stored_and_told_with_these_statuses() -> None:
    assert [*Status] == [
        *("waiting", "pending", "created", "in_transit", "exception", "out_for_delivery"),
        *("delivered", "returned", "stopped"),
    ]


FORWARD = {
    Status.CREATED: {"in_transit", "out_for_delivery", "delivered", "exception", "returned"},
    Status.IN_TRANSIT: {"out_for_delivery", "delivered", "exception", "returned"},
    Status.OUT_FOR_DELIVERY: {"delivered", "exception", "returned"},
    Status.EXCEPTION: {"in_transit", "out_for_delivery", "delivered", "returned"},
    Status.DELIVERED: set(),
    Status.RETURNED: set(),
}


@pytest.mark.parametrize("before", FORWARD)
@pytest.mark.parametrize("after", sorted(SCANNED))
def test_a_scan_goes_forward_and_never_back(before: Status, after: Status) -> None:
    shipment = created() if before is Status.CREATED else scanned(before)
    assert shipment.status is before
    shipment.on_scanned(FIRST, [scan(after, 60)], NEXT_LOOK, NOW)
    assert shipment.status is (after if after in FORWARD[before] else before)


def test_whatever_is_heard_of_a_shipment_says_when_it_was_changed() -> None:
    shipment, account, changes = a_shipment(), uuid4(), []
    acts: list[Callable[[datetime], object]] = [
        lambda now: shipment.on_buyer_changed(account, now),
        lambda now: shipment.on_order_confirmed(USER, a_parcel(), CARRIERS, now),
        lambda now: shipment.on_payment_successful(CARRIERS, now),
        lambda now: shipment.ask_next(CARRIERS, now),
        lambda now: shipment.on_refused(SECOND, "too heavy", CARRIERS, RETRY, now),
        lambda now: shipment.on_booked(THIRD, LABEL, RETRY, now),
        lambda now: shipment.on_voided(FIRST, now),
        lambda now: shipment.on_confirmed(THIRD, now + timedelta(hours=1), now),
        lambda now: shipment.on_user_erased(now),
        lambda now: shipment.stop(now),
        lambda now: shipment.on_under_way(THIRD, now),
        lambda now: shipment.on_scanned(THIRD, [scan(Status.IN_TRANSIT)], now + timedelta(hours=1), now),
    ]
    moments = [NOW + timedelta(seconds=number) for number in range(1, len(acts) + 1)]
    for act, moment in zip(acts, moments, strict=True):
        act(moment)
        changes.append(shipment.updated_at)
    assert changes == moments
    assert shipment.user_id == account


def test_payment_alone_is_a_change() -> None:
    shipment = a_shipment()
    shipment.on_payment_successful(CARRIERS, NOW + timedelta(seconds=1))
    assert shipment.updated_at == NOW + timedelta(seconds=1)
    assert shipment.created_at == NOW


def test_a_parcel_of_an_erased_account_is_followed_until_it_is_there() -> None:
    shipment = created()
    assert shipment.is_followed
    shipment.on_user_erased(NOW)
    assert shipment.is_followed
    shipment.on_scanned(FIRST, [scan(Status.DELIVERED)], NEXT_LOOK, NOW)
    assert not shipment.is_followed
