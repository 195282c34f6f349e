"""`stoa soak`: a moderate load for a long time, to see what grows that should not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import LinearRegression, StatisticsError, correlation, linear_regression, mean

import psutil  # type: ignore[import-untyped]  # no types
import uvloop
from rich.console import Console
from rich.table import Table

from stoa_contracts.declarations import Store
from stoa_load.instance import measured_instance
from stoa_load.load import Act, Http, Outcome, open_loop
from stoa_load.shop import Shop, Shopper, shop
from stoa_ops.topics import OffsetReader
from stoa_rest import GET_PRODUCT, LIST_CATEGORIES, LIST_PRODUCTS
from stoa_services import SERVICES
from stoa_stack.instance import Instance
from stoa_stack.running import processes_of
from stoa_stack.servers import java
from stoa_stack.status import Status
from stoa_stack.stores import STORES
from stoa_stack.up import status_file

_ORDERS, _READS = 2.0, 10.0  # a second
_SHOPPERS, _READERS = 8, 8
_SAMPLE_EVERY = 15.0  # seconds
_SIGN_IN_EVERY = 600.0  # seconds: before the tokens expire
_WARM_UP = 0.25  # of the time: caches fill, pools grow, code is compiled
# A line that fits so well is no accident, and what grew by less is not worth a word.
_FITS, _FEW = 0.8, {"memory MB": 10.0, "connections": 10.0, "open files": 10.0, "lag": 50.0}
_GROWS_WITH_ORDERS = ("tables", "files")
_MEMORY_IS_JUDGED_FROM = 300.0  # seconds: until then servers fill caches and compile, whatever the load is


@dataclass
class Series:
    """What was seen of one thing over time."""

    kind: str
    name: str
    at: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def settled(self) -> tuple[list[float], list[float]]:
        """The times and values after the warm-up."""
        begin = self.at[-1] * _WARM_UP
        seen = [(at, value) for at, value in zip(self.at, self.values, strict=True) if at >= begin]
        return [at for at, _ in seen], [value for _, value in seen]

    def per_hour(self) -> float:
        """How fast it grows, by a straight line through what was seen after the warm-up."""
        return self._line().slope * 3600

    def grows(self) -> bool:
        """Whether it grew steadily, and by more than is worth a word."""
        if self.kind in _GROWS_WITH_ORDERS:
            return False
        at, values = self.settled()
        try:
            fit = correlation(at, values)
        except StatisticsError:  # it never changed, or there are too few samples
            return False
        grown = self._line().slope * (at[-1] - at[0])
        return fit > _FITS and grown > max(_FEW[self.kind], 0.05 * mean(values))

    def _line(self) -> LinearRegression:
        try:
            return linear_regression(*self.settled())
        except StatisticsError:
            return LinearRegression(0.0, 0.0)


def command(console: Console, minutes: float, file: Path | None) -> int:
    """Hold a moderate load for so long; 1 if something grows that should not, or a request failed."""
    with measured_instance(console) as at:
        path = file or at.folder("bench") / "soak.jsonl"
        return uvloop.run(_soak(at, console, minutes * 60, path))


async def _soak(at: Instance, console: Console, seconds: float, file: Path) -> int:
    series: dict[tuple[str, str], Series] = {}
    console.print(f"{_ORDERS:g} orders and {_READS:g} reads a second for {seconds / 60:g} min.")
    async with shop(at) as place, _sampling(at, place, series, file):
        orders, reads = await asyncio.gather(
            open_loop(await _buyers(place), _ORDERS, seconds),
            open_loop(await _readers(place), _READS, seconds),
        )
    growing = [each for each in series.values() if judged(each, seconds) and each.grows()]
    _report(console, series, growing, orders, reads)
    console.print(f"Every sample is in {file}", soft_wrap=True)
    if seconds < _MEMORY_IS_JUDGED_FROM:
        console.print(
            f"[yellow]Memory is not judged:[/] within {_MEMORY_IS_JUDGED_FROM / 60:g} minutes servers still "
            "grow to their size. Let it run for longer."
        )
    for each in growing:
        console.print(f"[red]{each.kind} of {each.name} grows[/] by {each.per_hour():.1f} an hour.")
    for outcome in (orders, reads):
        if outcome.first_error:
            console.print(f"[red]{outcome.errors} requests failed[/], the first: {outcome.first_error}")
    if not growing:
        console.print("[green]Nothing grows that should not.[/]")
    return 1 if growing or any(each.errors or each.shed or each.unmet for each in (orders, reads)) else 0


def judged(series: Series, seconds: float) -> bool:
    """Whether a soak of so many seconds may say of something that it grows."""
    return series.kind != "memory MB" or seconds >= _MEMORY_IS_JUDGED_FROM


async def _buyers(place: Shop) -> list[Act]:
    shoppers = await place.shoppers(_SHOPPERS)
    turn = itertools.cycle(await place.items(10))

    def act(shopper: Shopper) -> Act:
        return lambda: shopper.buy(next(turn))

    return [act(shopper) for shopper in shoppers]


async def _readers(place: Shop) -> list[Act]:
    products = [GET_PRODUCT.target(product["product_id"]) for product in await place.products(20)]
    turn = itertools.cycle([*products, LIST_PRODUCTS.target(page_size=20), LIST_CATEGORIES.target()])
    clients = [Http(place.at.edge_url) for _ in range(_READERS)]

    def act(client: Http) -> Act:
        return lambda: client.send(client.encode("GET", next(turn)))

    return [act(client) for client in clients]


@asynccontextmanager
async def _sampling(
    at: Instance, place: Shop, series: dict[tuple[str, str], Series], file: Path
) -> AsyncIterator[None]:
    """Sample in the background, and sign the shoppers in again before their tokens expire."""

    async def sample() -> None:
        began = time.monotonic()
        for number in itertools.count(1):
            await asyncio.sleep(max(0.0, began + number * _SAMPLE_EVERY - time.monotonic()))
            now = time.monotonic() - began
            seen = await asyncio.to_thread(_sizes, at)
            seen |= {("tables", name): size for name, size in (await place.database_sizes()).items()}
            for key, value in seen.items():
                each = series.setdefault(key, Series(*key))
                each.at.append(now)
                each.values.append(value)
            line: dict[str, dict[str, float]] = defaultdict(dict)
            for (kind, name), value in seen.items():
                line[kind][name] = round(value, 2)
            with file.open("a") as out:
                out.write(json.dumps({"second": round(now, 1), **line}) + "\n")

    async def sign_in() -> None:
        while True:
            await asyncio.sleep(_SIGN_IN_EVERY)
            await place.sign_in_again()

    tasks = [asyncio.create_task(sample()), asyncio.create_task(sign_in())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def _sizes(at: Instance) -> dict[tuple[str, str], float]:
    """What can be seen from outside at this moment, by kind and name."""
    seen: dict[tuple[str, str], float] = {}
    status = Status.read(status_file(at))
    for name, part in (status.parts if status else {}).items():
        if processes := processes_of(part):
            seen["memory MB", name] = sum(map(_memory, processes))
            seen["connections", name] = sum(map(_connections, processes))
            seen["open files", name] = sum(map(_open_files, processes))
    groups = [name for name, service in SERVICES.items() if service.consumes]
    with contextlib.closing(OffsetReader(at.address("kafka"))) as reader:
        behind = reader.lag(groups)
    seen |= {("lag", group): float(sum(each.values())) for group, each in behind.items() if each}
    # What PostgreSQL's databases take is asked of it: its log is kept at one size.
    keepers = [store.part for kind, store in STORES.items() if kind is not Store.POSTGRES]
    seen |= {("files", part): _megabytes(at.state / part) for part in ("kafka", *keepers)}
    return seen


def _memory(process: psutil.Process) -> float:
    """Return the megabytes that are a process' own, without garbage.

    PostgreSQL's processes fill the buffers that they share, and a Java heap grows to its bound before it is
    cleaned: neither is growth without end.
    """
    with contextlib.suppress(psutil.Error):
        java.collect_garbage(process)
        return float(process.memory_full_info().uss / 2**20)
    return 0.0


def _connections(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))
    return 0


def _open_files(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.num_fds())
    return 0


def _megabytes(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            if path.is_file():
                total += path.stat().st_blocks * 512
    return total / 2**20


def _report(
    console: Console,
    series: dict[tuple[str, str], Series],
    growing: Sequence[Series],
    orders: Outcome,
    reads: Outcome,
) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "first", "last", "an hour", "for 1,000 orders", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    per_second = len(orders.times) / orders.seconds
    for each in series.values():
        _, values = each.settled()
        per_thousand = each.per_hour() / 3600 / per_second * 1000 if per_second else 0.0
        table.add_row(
            each.kind, each.name, f"{values[0]:.0f}", f"{values[-1]:.0f}", f"{each.per_hour():+.1f}",
            f"{per_thousand:+.2f}" if each.kind in _GROWS_WITH_ORDERS else "",
            "[red]grows[/]" if each in growing else "",
        )  # fmt: skip
    console.print(table)
    for what, outcome in (("orders", orders), ("reads", reads)):
        console.print(_summary(what, outcome))


def _summary(what: str, outcome: Outcome) -> str:
    p50, p99 = outcome.percentile(50), outcome.percentile(99)
    return (
        f"{what}: {len(outcome.times)}, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
        f"{outcome.errors} errors, {outcome.shed} shed, {outcome.unmet} never begun"
    )
