"""Waiting for what happens elsewhere."""

import asyncio
from collections.abc import Callable

import pytest

from stoa_chassis.testing import eventually


def looks(*sights: object) -> Callable[[], object]:
    """A function that shows one sight after another, and then the last one for ever; errors are raised."""
    left = list(sights)

    def look() -> object:
        sight = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(sight, Exception):
            raise sight
        return sight

    return look


async def test_the_first_true_value_is_returned() -> None:
    assert await eventually(looks(0, "", [], "here", "later")) == "here"


async def test_an_async_look_is_awaited() -> None:
    sights = looks(None, 7)

    async def look() -> object:
        return sights()

    assert await eventually(look) == 7


async def test_what_never_comes_is_named_with_what_was_seen_last() -> None:
    async def nothing_is_left() -> list[int]:
        return []

    with pytest.raises(AssertionError, match=r"nothing_is_left .* 0.05 s, but was \[\]"):
        await eventually(nothing_is_left, within=0.05)


async def test_a_look_that_hangs_is_given_up() -> None:
    with pytest.raises(AssertionError, match=r"Event.wait .* was None"):
        await eventually(asyncio.Event().wait, within=0.05)


async def test_an_error_of_a_look_ends_the_wait() -> None:
    for error in (ValueError("broken"), TimeoutError("its own")):
        with pytest.raises(type(error), match=str(error)):
            await eventually(looks(None, error))


async def test_an_expected_error_is_passed_over_and_told_at_the_end() -> None:
    assert await eventually(looks(KeyError("a"), KeyError("b"), "here"), despite=(KeyError,)) == "here"
    with pytest.raises(AssertionError, match=r"KeyError\('a'\)"):
        await eventually(looks(KeyError("a")), within=0.05, despite=(KeyError,))
