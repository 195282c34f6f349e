"""The use cases of notifications: to note what is to be told, and to deliver it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.context import correlation_id
from stoa_chassis.due import Backoff, DueWork
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_contracts.events import Payload
from stoa_events import (
    InventoryLowStock,
    OrderBuyerChanged,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderPlaced,
    OrderReturnDecided,
    OrderReturned,
    OrderReturnRequested,
    PaymentFailed,
    PaymentRefunded,
    ShipmentCreated,
    ShipmentStatusUpdated,
    UserEmailChangeRequested,
    UserEmailVerificationRequested,
    UserEmailVerified,
    UserErased,
    UserPasswordChanged,
    UserPasswordResetRequested,
    UserProfileUpdated,
    UserRegistered,
)
from stoa_notification import occasions
from stoa_notification.model import (
    Channel,
    Contact,
    DeliveryPolicy,
    GuestOrder,
    Notification,
    Occasion,
    Parcel,
    Preferences,
    Recipient,
    Template,
    known_locale,
    notifications,
)
from stoa_notification.ports import (
    Message,
    NotificationReader,
    NotTaken,
    OutcomeUnknown,
    Outgoing,
    Provider,
    Refused,
    Renderer,
    Tx,
)

_log = get_logger(__name__)


class Delivery:
    """Delivers what is to be told: claims it, gives it to the provider of its channel, notes the outcome.

    No transaction is open while a provider is waited for. Whatever dies between a provider's answer and the
    note of it leaves an attempt of unknown outcome: it is repeated where a repetition is told to be one
    (`Provider.repeatable`), and given up elsewhere (docs/adr 32).
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        outgoing: Outgoing,
        providers: Mapping[Channel, Provider],
        renderer: Renderer,
        policy: DeliveryPolicy,
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self._uow = uow
        self._providers = providers
        self._renderer = renderer
        self._policy = policy
        self._clock = clock
        self.due = DueWork(outgoing, self.deliver, backoff, clock)
        """Takes up what is to be delivered."""

    @property
    def channels(self) -> Collection[Channel]:
        """The channels that there is a provider for."""
        return self._providers.keys()

    def begin(self, notifications: Iterable[Notification]) -> None:
        """Claim new notifications that can be delivered at once, before they are stored, if there is room."""
        for notification in notifications:
            if self.due.has_room and notification.is_pending and notification.is_complete:
                notification.claim(self._policy, self._clock.now())

    def take_up(self, stored: Sequence[Notification]) -> None:
        """Deliver what was stored as claimed, and look for what is due otherwise."""
        for notification in stored:
            if notification.attempts:
                self.due.take_up(notification)
            elif notification.is_pending:
                self.due.wake()

    async def deliver(self, notification: Notification) -> None:
        """Try to deliver a notification that was claimed. Raises Unavailable if the store is down."""
        provider = self._providers.get(notification.channel)
        if why := notification.too_late(self._policy, self._clock.now()):
            await self._failed(notification, why if notification.is_complete else "incomplete")
        elif provider is None:
            await self._failed(notification, "no_provider")
        elif notification.outcome_is_unknown and not provider.repeatable:
            await self._failed(notification, "outcome_unknown")
        elif notification.is_complete:
            await self._give(notification, provider)
        else:
            await self._complete_and_give(notification, provider)

    async def _complete_and_give(self, claimed: Notification, provider: Provider) -> None:
        """Find out what is not known yet of a notification, or let it wait."""
        notification = await self._complete(claimed)
        if notification.is_complete:
            await self._give(notification, provider)
        elif notification.is_pending:
            _log.info("a notification waits for what it tells", notification_id=notification.notification_id)
            await self.due.put_off(notification)

    async def _give(self, notification: Notification, provider: Provider) -> None:
        recipient = notification.recipient
        assert recipient is not None
        message = Message(
            notification.notification_id,
            recipient.address,
            recipient.name,
            self._renderer.render(notification),
            notification.created_at,
        )
        try:
            await provider.send(message)
        except Refused as error:
            await self._refused(notification, error)
        except NotTaken as error:
            _log.info(
                "a notification has to wait", notification_id=notification.notification_id, cause=str(error)
            )
            await self.due.put_off(notification)
        except OutcomeUnknown as error:
            _log.warning(
                "a provider did not answer", notification_id=notification.notification_id, cause=str(error)
            )
            if provider.repeatable:
                await self.due.put_off(notification)
            else:
                await self._failed(notification, "outcome_unknown")
        else:
            await self._sent(notification, provider.name)

    @transactional
    async def _complete(self, tx: Tx, claimed: Notification) -> Notification:
        """Find out whom a notification is for and where its parcel is shown, if that is known by now."""
        notification = await tx.notifications.lock(claimed.notification_id)
        if notification.is_pending and notification.recipient is None:
            notification.address_to(*await _whom(tx, notification.user_id, notification.order_id))
        if notification.is_pending and notification.shipment_id is not None:
            notification.describe(await tx.parcels.get(notification.shipment_id))
        if notification.is_complete:
            notification.subject = self._renderer.subject(notification)
        await tx.notifications.save(notification)
        return notification

    @transactional
    async def _sent(self, tx: Tx, claimed: Notification, provider: str) -> None:
        notification = replace(claimed, events=[])
        notification.sent(provider, self._clock.now())
        await tx.notifications.end(notification)

    @transactional
    async def _failed(self, tx: Tx, claimed: Notification, why: str) -> None:
        _log.error("a notification failed", notification_id=claimed.notification_id, why=why)
        notification = replace(claimed, events=[])
        notification.fail(why, self._clock.now())
        await tx.notifications.end(notification)

    async def _refused(self, notification: Notification, error: Refused) -> None:
        recipient = notification.recipient
        await self._failed(notification, f"refused: {error.code}")
        if error.address_is_gone and notification.user_id and recipient:
            await self._forget_address(notification.user_id, notification.channel, recipient.address)

    @transactional
    async def _forget_address(self, tx: Tx, user_id: UUID, channel: Channel, address: str) -> None:
        contact = await tx.contacts.lock(user_id)
        contact.forget_address(channel, address)
        await tx.contacts.save(contact)


class Notifications:
    """What users are told, and want to be told."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        reader: NotificationReader,
        delivery: Delivery,
        renderer: Renderer,
        policy: DeliveryPolicy,
        staff: Recipient,
        clock: Clock,
    ) -> None:
        """`staff` gets what the shop tells itself."""
        self._uow = uow
        self._reader = reader
        self._delivery = delivery
        self._renderer = renderer
        self._policy = policy
        self._staff = staff
        self._clock = clock

    # ------------------------------------------------------------------------------------------ for users

    async def preferences(self, user_id: UUID) -> Preferences:
        """Return what a user wants to be told; the defaults of one who has not said anything."""
        contact = await self._reader.contact(user_id)
        return contact.preferences if contact else Preferences()

    @transactional
    async def prefer(self, tx: Tx, user_id: UUID, preferences: Preferences) -> Preferences:
        """Replace what a user wants to be told. Raises ContactErased."""
        contact = await tx.contacts.lock(user_id)
        contact.prefer(preferences)
        await tx.contacts.save(contact)
        return contact.preferences

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Notification]:
        """Read what a user was told or will be, the newest first; `before`: only older than this one."""
        return await self._reader.list(user_id, before, limit)

    # --------------------------------------------------------------------------------------- events of users

    async def on_user_registered(self, event: Event[UserRegistered]) -> None:
        """Know the account, and welcome its owner."""
        self._delivery.take_up(await self._welcome(event, occasions.registered(event)))

    @transactional
    async def on_profile_updated(self, tx: Tx, event: Event[UserProfileUpdated]) -> None:
        """Know the account as it is now."""
        await _know(tx, event)

    @transactional
    async def on_email_verified(self, tx: Tx, event: Event[UserEmailVerified]) -> None:
        """Know that mail to this address reaches the owner."""
        contact = await tx.contacts.lock(event.payload.user_id)
        contact.know_email(event.payload.email, event.timestamp)
        await tx.contacts.save(contact)

    async def on_email_verification_requested(self, event: Event[UserEmailVerificationRequested]) -> None:
        """Mail a link by which an address is confirmed."""
        await self._tell(event, occasions.link_requested(event, Template.VERIFY_EMAIL))

    async def on_password_reset_requested(self, event: Event[UserPasswordResetRequested]) -> None:
        """Mail a link by which a password is chosen anew."""
        await self._tell(event, occasions.link_requested(event, Template.PASSWORD_RESET))

    async def on_email_change_requested(self, event: Event[UserEmailChangeRequested]) -> None:
        """Warn the owner, at the address that the account still has."""
        await self._tell(event, occasions.account_changed(event, Template.EMAIL_CHANGE))

    async def on_password_changed(self, event: Event[UserPasswordChanged]) -> None:
        """Warn the owner, who may not have done it."""
        await self._tell(event, occasions.account_changed(event, Template.PASSWORD_CHANGED))

    @transactional
    async def on_user_erased(self, tx: Tx, event: Event[UserErased]) -> None:
        """Forget the person: what was told stays, without an address and without what it said."""
        user_id, now = event.payload.user_id, self._clock.now()
        contact = await tx.contacts.lock(user_id)
        contact.erase(now)
        await tx.contacts.save(contact)
        await tx.guest_orders.forget(user_id)
        for notification in await tx.notifications.pending_of(user_id):
            notification.suppress("erased", now)
            await tx.notifications.save(notification)

    # -------------------------------------------------------------------------------------- events of orders

    async def on_order_placed(self, event: Event[OrderPlaced]) -> None:
        """Know where mail about an order goes that has no account behind it."""
        if event.payload.email:
            await self._know_guest_order(event)

    @transactional
    async def on_buyer_changed(self, tx: Tx, event: Event[OrderBuyerChanged]) -> None:
        """Count what was told of a guest's order to the account that it belongs to now."""
        await tx.guest_orders.hand_over(event.payload.order_id, event.payload.user_id)
        await tx.notifications.hand_over(event.payload.order_id, event.payload.user_id)

    async def on_order_confirmed(self, event: Event[OrderConfirmed]) -> None:
        """Tell the buyer what is coming and what it costs."""
        await self._tell(event, occasions.confirmed(event))

    async def on_order_cancelled(self, event: Event[OrderCancelled]) -> None:
        """Tell the buyer that nothing is coming."""
        await self._tell(event, occasions.cancelled(event))

    async def on_order_delivered(self, event: Event[OrderDelivered]) -> None:
        """Tell the buyer that it is there."""
        await self._tell(event, occasions.delivered(event))

    async def on_return_requested(self, event: Event[OrderReturnRequested]) -> None:
        """Tell the buyer that it is known what they want to send back."""
        await self._tell(event, occasions.return_requested(event))

    async def on_return_decided(self, event: Event[OrderReturnDecided]) -> None:
        """Tell the buyer whether it may be sent back."""
        await self._tell(event, occasions.return_decided(event))

    async def on_order_returned(self, event: Event[OrderReturned]) -> None:
        """Tell the buyer that what was sent back is there."""
        await self._tell(event, occasions.returned(event))

    async def on_payment_failed(self, event: Event[PaymentFailed]) -> None:
        """Tell the buyer that the order could not be paid."""
        await self._tell(event, occasions.payment_failed(event))

    async def on_payment_refunded(self, event: Event[PaymentRefunded]) -> None:
        """Tell the buyer that money is on its way back."""
        await self._tell(event, occasions.refunded(event))

    @transactional
    async def on_shipment_created(self, tx: Tx, event: Event[ShipmentCreated]) -> None:
        """Know where a parcel can be followed, for when it is on its way."""
        parcel = event.payload
        await tx.parcels.add(
            Parcel(
                shipment_id=parcel.shipment_id,
                tracking_url=parcel.tracking_url,
                estimated_delivery=parcel.estimated_delivery,
            )
        )

    async def on_shipment_status_updated(self, event: Event[ShipmentStatusUpdated]) -> None:
        """Tell the buyer what happens to the parcel, if it is something to be told."""
        if (occasion := occasions.on_its_way(event)) is not None:
            await self._tell(event, occasion)

    # --------------------------------------------------------------------------------------- events of stock

    async def on_low_stock(self, event: Event[InventoryLowStock]) -> None:
        """Tell staff to order more."""
        await self._tell(event, occasions.low_stock(event, self._staff))

    async def _tell(self, event: Event[Payload], occasion: Occasion) -> None:
        self._delivery.take_up(await self._note(event, occasion))

    @transactional
    async def _note(self, tx: Tx, event: Event[Payload], occasion: Occasion) -> Sequence[Notification]:
        """Note what is to be told, and that the event was handled; return what was stored."""
        contact, guest, parcel = None, None, None
        if occasion.recipient is None:
            contact, guest = await _whom(tx, occasion.user_id, occasion.order_id)
        if occasion.shipment_id is not None:
            parcel = await tx.parcels.get(occasion.shipment_id)
        return await self._begin(tx, occasion, contact, guest, parcel)

    @transactional
    async def _welcome(
        self, tx: Tx, event: Event[UserRegistered], occasion: Occasion
    ) -> Sequence[Notification]:
        return await self._begin(tx, occasion, await _know(tx, event))

    @transactional
    async def _know_guest_order(self, tx: Tx, event: Event[OrderPlaced]) -> None:
        order = event.payload
        await tx.guest_orders.add(
            GuestOrder(
                order_id=order.order_id,
                user_id=order.user_id,
                email=order.email,
                locale=known_locale(order.locale),
                access_token=order.access_token,
            )
        )

    async def _begin(
        self,
        tx: Tx,
        occasion: Occasion,
        contact: Contact | None = None,
        guest: GuestOrder | None = None,
        parcel: Parcel | None = None,
    ) -> Sequence[Notification]:
        begun = list(
            notifications(
                occasion,
                contact,
                guest,
                self._delivery.channels,
                correlation_id(),
                self._policy,
                self._clock.now(),
            )
        )
        if await _is_told_already(tx, occasion):
            for notification in begun:
                notification.suppress("told_already", self._clock.now())
        for notification in begun:
            if notification.is_pending and notification.shipment_id is not None:
                notification.describe(parcel)
            if notification.is_complete:
                notification.subject = self._renderer.subject(notification)
        self._delivery.begin(begun)
        return await tx.notifications.add(begun)


async def _is_told_already(tx: Tx, occasion: Occasion) -> bool:
    """Whether a mail says the same: that an order could not be paid says that it is cancelled."""
    if occasion.order_id is None or occasion.template is not Template.ORDER_CANCELLED:
        return False
    return await tx.notifications.tells(occasion.order_id, Template.PAYMENT_FAILED)


async def _whom(
    tx: Tx, user_id: UUID | None, order_id: UUID | None
) -> tuple[Contact | None, GuestOrder | None]:
    """Return who may be told of something: the account, and who ordered without one."""
    contact = await tx.contacts.get(user_id) if user_id else None
    if order_id is None or (contact is not None and contact.email):
        return contact, None
    return contact, await tx.guest_orders.get(order_id)


async def _know(tx: Tx, event: Event[UserRegistered] | Event[UserProfileUpdated]) -> Contact:
    """Take over an account as an event has it."""
    account = event.payload
    contact = await tx.contacts.lock(account.user_id)
    contact.know(
        email=account.email, first_name=account.first_name, locale=account.locale, at=event.timestamp
    )
    await tx.contacts.save(contact)
    return contact
