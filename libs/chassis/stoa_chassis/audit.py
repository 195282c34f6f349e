"""What operators' tools read of a service, which its `audit.py` provides.

Its package may have a module `audit`, which `stoa audit` and `stoa sagas` find by its name. All of it is
optional:

- `async def read(store) -> Books` reads the service's books, as they are at one moment. `store` is where the
  service keeps its data (asyncpg.Connection, pymongo's AsyncDatabase, redis.asyncio.Redis), with an account
  that may only read.
- `def findings(books) -> Iterable[Finding]` checks the rules that are the service's own. Rules that cross
  services stand in the audit, and work on the books that the services hand over.
- `async def waiting(store) -> Iterable[Waiting]` returns what waits for something.
- `NOTED` are the topics whose events its group notes in its inbox, if these are not all that it consumes.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not balance: which rule, about what, what is wrong, and where to look further."""

    rule: str
    subject: str
    detail: str
    look: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits: for what, since when, and how often it was asked again.

    `next_ask` is when it will be asked once more, `deadline` when it gives up, None if never.
    """

    order_id: UUID
    waits_for: str
    since: datetime
    attempts: int
    next_ask: datetime
    deadline: datetime | None = None
