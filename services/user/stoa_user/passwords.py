"""Passwords as argon2id hashes, computed beside the event loop.

A hash costs tens of milliseconds of a core and tens of mebibytes on purpose, so a few threads do it and only
so many callers may wait for them: a flood of sign-ins must not take the service away from everybody else.

What is hashed is the password prepared as the profile OpaqueString has it (RFC 8265, section 4.2): the same
letters are the same password whichever way a keyboard composes them, and so are all kinds of blanks. What the
profile would refuse, control characters and those that a version of Unicode does not know yet, is taken: an
upgrade of Python must not decide who can sign in. Hashes from before that are of what was typed; they are
good, and made anew when they are met.
"""

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Self, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from stoa_chassis.errors import InvalidArgument
from stoa_user.model import SignInBusy
from stoa_user.ports import PasswordVerdict

_MIN_LENGTH = 8
T = TypeVar("T")


def prepare(password: str) -> str:
    """Return what is hashed of a password: with all blanks alike, and composed (NFC)."""
    blanks_alike = "".join(" " if unicodedata.category(each) == "Zs" else each for each in password)
    return unicodedata.normalize("NFC", blanks_alike)


@cache
def common_passwords() -> frozenset[str]:
    """Return the commonest passwords, in small letters. Where they come from is said in the file."""
    text = (files("stoa_user") / "common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("# "))


def check_new(password: str) -> None:
    """Raise InvalidArgument for a password that nobody should choose."""
    prepared = prepare(password)
    if len(prepared) < _MIN_LENGTH:
        # Once more, since characters that were sent apart may have become one.
        raise InvalidArgument("password", f"must have at least {_MIN_LENGTH} characters")
    # As the list is written, also of letters and digits that an East Asian keyboard makes as wide as its own.
    core = unicodedata.normalize("NFKC", prepared).strip().casefold()
    if not core:
        raise InvalidArgument("password", "must not be blank")
    if len(set(core)) == 1:
        raise InvalidArgument("password", "must not be one character again and again")
    if core in common_passwords():
        raise InvalidArgument("password", "is one of the most common passwords; please choose another")


class Argon2Passwords:
    """Hashes and checks passwords, in the turn that a caller waits for."""

    def __init__(
        self, executor: ThreadPoolExecutor, *, threads: int, waiting: int, hasher: PasswordHasher
    ) -> None:
        self._executor = executor
        self._slots = asyncio.Semaphore(threads)
        self._waiting = 0
        self._most_waiting = waiting
        self._hasher = hasher
        # Checked when there is no such account, so that this takes as long as when there is one.
        self._nobody = hasher.hash("")

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, threads: int, waiting: int, memory_kib: int, iterations: int, lanes: int
    ) -> AsyncIterator[Self]:
        """Start `threads` threads, for which at most `waiting` callers may wait."""
        hasher = PasswordHasher(time_cost=iterations, memory_cost=memory_kib, parallelism=lanes, type=Type.ID)
        executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        try:
            yield cls(executor, threads=threads, waiting=waiting, hasher=hasher)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free thread. Raises SignInBusy if too many are waiting already."""
        if self._waiting >= self._most_waiting:
            raise SignInBusy("too many sign-ins at once; please try again", retry_after=timedelta(seconds=1))
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    def check_new(self, password: str) -> None:
        """Raise InvalidArgument for a password that nobody should choose, because it is too common."""
        check_new(password)

    async def hash(self, password: str) -> str:
        """Return the hash to store; to be called in a turn."""
        return await self._run(self._hasher.hash, _forms(password)[0])

    async def verify(self, password: str, password_hash: str | None) -> PasswordVerdict:
        """Tell whether a password is that of a hash; to be called in a turn.

        None as hash (no such account) is never right and takes the same time.
        """
        return await self._run(self._verify, password, password_hash)

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def _verify(self, password: str, password_hash: str | None) -> PasswordVerdict:
        hashed = password_hash or self._nobody
        prepared, *older = _forms(password)
        if self._matches(hashed, prepared):
            right = PasswordVerdict.RIGHT
            if self._hasher.check_needs_rehash(hashed):
                right = PasswordVerdict.OUTDATED
        elif any(self._matches(hashed, form) for form in older):
            right = PasswordVerdict.OUTDATED
        else:
            return PasswordVerdict.WRONG
        return right if password_hash is not None else PasswordVerdict.WRONG

    def _matches(self, password_hash: str, form: str) -> bool:
        try:
            return self._hasher.verify(password_hash, form)
        except (VerificationError, InvalidHashError):
            return False


def _forms(password: str) -> list[str]:
    """Return what of a password may have been hashed: as it is today, and else as it was typed."""
    prepared = prepare(password)
    return [prepared] if prepared == password else [prepared, password]
