"""Passwords as argon2id hashes, computed beside the event loop.

A hash costs tens of milliseconds of a core and tens of mebibytes on purpose, so a few threads do it and only
so many callers may wait for them: a flood of sign-ins must not take the service away from everybody else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from stoa_user.model import SignInBusy

T = TypeVar("T")


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

    async def hash(self, password: str) -> str:
        """Return the hash to store; to be called in a turn."""
        return await self._run(self._hasher.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether a password is that of a hash; to be called in a turn.

        None as hash (no such account) is never right and takes the same time.
        """
        return await self._run(self._verify, password, password_hash)

    def is_outdated(self, password_hash: str) -> bool:
        """Tell whether a hash was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(password_hash)

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None
