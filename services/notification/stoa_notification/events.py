"""What notification does about events of other services."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
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
from stoa_notification.service import Notifications


def handlers(notifications: Notifications) -> Mapping[type[Payload], Handler]:
    """Return the use case that handles each event."""
    return {
        UserRegistered: notifications.on_user_registered,
        UserProfileUpdated: notifications.on_profile_updated,
        UserEmailVerified: notifications.on_email_verified,
        UserEmailVerificationRequested: notifications.on_email_verification_requested,
        UserPasswordResetRequested: notifications.on_password_reset_requested,
        UserEmailChangeRequested: notifications.on_email_change_requested,
        UserPasswordChanged: notifications.on_password_changed,
        UserErased: notifications.on_user_erased,
        OrderPlaced: notifications.on_order_placed,
        OrderBuyerChanged: notifications.on_buyer_changed,
        OrderConfirmed: notifications.on_order_confirmed,
        OrderCancelled: notifications.on_order_cancelled,
        OrderDelivered: notifications.on_order_delivered,
        OrderReturnRequested: notifications.on_return_requested,
        OrderReturnDecided: notifications.on_return_decided,
        OrderReturned: notifications.on_order_returned,
        ShipmentCreated: notifications.on_shipment_created,
        ShipmentStatusUpdated: notifications.on_shipment_status_updated,
        PaymentFailed: notifications.on_payment_failed,
        PaymentRefunded: notifications.on_payment_refunded,
        InventoryLowStock: notifications.on_low_stock,
    }
