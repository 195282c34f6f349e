"""Tracking numbers as the carriers give them, each with its check digit."""

import random
from string import ascii_uppercase, digits

_FEDEX_WEIGHTS = (3, 1, 7, 3, 1, 7, 3, 1, 7, 3, 1)


def fedex() -> str:
    """Twelve digits; the last is the weighted sum of the others modulo 11, ten counting as zero."""
    number = _digits(11)
    total = sum(int(digit) * weight for digit, weight in zip(number, _FEDEX_WEIGHTS, strict=True))
    return f"{number}{total % 11 % 10}"


def ups(service: str) -> str:
    """1Z, six characters of the shipper, two of the service, seven digits, and a check digit modulo 10.

    Letters count as digits (A is 2), and every second place twice.
    """
    number = f"{''.join(random.choices(ascii_uppercase + digits, k=6))}{service}{_digits(7)}"
    values = [int(sign) if sign.isdecimal() else (ord(sign) - 3) % 10 for sign in number]
    return f"1Z{number}{-(sum(values[::2]) + 2 * sum(values[1::2])) % 10}"


def dhl() -> str:
    """Ten digits; the last is the others modulo 7."""
    number = _digits(9)
    return f"{number}{int(number) % 7}"


def _digits(count: int) -> str:
    return "".join(random.choices(digits, k=count))
