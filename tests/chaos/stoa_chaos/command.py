"""`stoa chaos`: journeys of shoppers and a schedule of faults at once, then quiet, then the audit."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from stoa_chaos.fault_injection import FaultInjector, NotRunning
from stoa_chaos.faults import striking
from stoa_chaos.journeys import Journey, journeys, play
from stoa_chaos.probes import SteadyStateProbes
from stoa_chaos.record import Record
from stoa_chaos.report import SETTLED_WITHIN, Report, Struck
from stoa_chaos.returns import Returns
from stoa_chaos.schedule import Strike, schedule
from stoa_chaos.shopper import InsistentClient, Shopper
from stoa_ops.audit.command import audit
from stoa_ops.settings import OperatorSettings
from stoa_stack import shopping
from stoa_stack.carriers import Carriers
from stoa_stack.deliveries import deliver_to
from stoa_stack.files import write_atomically
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.shopping import Item, new_product, open_account, put_on_sale
from stoa_stack.status import State, Status
from stoa_stack.throwaway import SHORT_WAITS, throwaway
from stoa_stack.up import is_running, status_file

_STATE = CHECKOUT / ".stoa-chaos"  # the instance that is broken when none is named
_SHOPPERS = 40  # at once
_PROBES = 6
# Parcels arrive while there still is trouble, and a carrier that is down is soon relieved.
_SHORT_WAYS = {
    "CARRIERS_FIRST_SCAN_SECONDS": "20",
    "CARRIERS_DELIVERY_SECONDS": "40",
    "STOA_SHIPPING__TAKEOVER_SECONDS": "10",
    "STOA_SHIPPING__POLL_FIRST_SECONDS": "10",
}
_PLENTY, _SCARCE = (8, 5_000), (2, 25)  # products of five variants each, and the stock of a variant
_STRIKE_TRIES = 40
_BACK_WITHIN = 60.0  # seconds
_AUDIT_WITHIN = SETTLED_WITHIN * 2  # longer than it may take, to say by how much


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    seed: int
    checkouts: int
    faults: int
    minutes: float
    only: tuple[str, ...] = ()  # parts; none: all

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        return self.minutes * 60

    @property
    def strikes(self) -> list[Strike]:
        """The schedule of faults."""
        return schedule(striking(self.only), self.faults, self.seconds, self.seed)

    @property
    def journeys(self) -> list[Journey]:
        """What the shoppers do."""
        return journeys(self.checkouts, self.seconds, self.seed)


def command(console: Console, plan: Plan, *, here: bool, report_file: Path | None) -> int:
    """Break the instance that runs (`here`), or one that is made for it and thrown away.

    Returns 0 if every rule held, 1 if not, 2 if there is nothing to break.
    """
    if plan.faults and not striking(plan.only):
        console.print(f"No fault strikes {', '.join(plan.only)}.")
        return 2
    if here:
        at = Instance.current()
        if not is_running(at) or at.rate_limits:
            console.print(
                f"In {at.state} no shop runs that can be broken: "
                "start one with `STOA_RATE_LIMITS=off stoa up`, or leave out --here."
            )
            return 2
        return _break(at, console, plan, report_file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then the stack is stopped
    with throwaway(console, _STATE, SHORT_WAITS | _SHORT_WAYS) as at:
        return _break(at, console, plan, report_file)


def _break(at: Instance, console: Console, plan: Plan, report_file: Path | None) -> int:
    console.print(
        f"Seed {plan.seed}: {plan.checkouts} checkouts and {plan.faults} faults in {plan.minutes:g} min."
    )
    for strike in plan.strikes:
        console.print(Text(str(strike)), soft_wrap=True)
    try:
        report = asyncio.run(_until_terminated(_run(at, console, plan)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped before its end; what was broken is healed.")
        return 130
    report.show(console)
    path = report_file or at.state / "chaos.json"
    write_atomically(path, json.dumps(report.as_json(), indent=1) + "\n")
    console.print(f"The report: {path}", soft_wrap=True)
    return 1 if report.problems else 0


async def _until_terminated(running: Any) -> Report:
    """Let SIGTERM end it as Ctrl-C does: by cancelling, so that everything is healed."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    report: Report = await task
    return report


async def _run(at: Instance, console: Console, plan: Plan) -> Report:
    report = Report(plan.seed, Record())
    arrived = time.monotonic()
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
    async with (
        httpx.AsyncClient(base_url=at.edge_url, timeout=20, limits=limits) as http,
        Carriers(at) as carriers,
    ):
        sale = await _stock_up(at, http)
        shoppers: asyncio.Queue[Shopper] = asyncio.Queue()
        user_ids = []
        for _ in range(min(_SHOPPERS, plan.checkouts)):
            shopper = await open_account(Shopper(http, report.record, report.record.requests), "chaos")
            user_ids.append(shopper.user_id)
            shoppers.put_nowait(shopper)
        for item in {each.product_id: each for each in (*sale.plenty, *sale.scarce)}.values():
            await deliver_to(at, user_ids, item)  # so that all of them may review it
        probes = await SteadyStateProbes.prepared(http, report.record, sale.plenty[0], _PROBES)
        staff = InsistentClient(http, report.record, report.record.requests)
        returns = Returns(await staff.sign_in(**shopping.access(at)["staff"]), carriers)
        report.peace = await probes.peace()
        report.record.requests.clear()  # accounts are opened before anything is broken
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for journey in plan.journeys:
                group.create_task(_go(journey, began, shoppers, sale, returns))
            strikes = [
                group.create_task(_strike(strike, began, FaultInjector(at), probes, console))
                for strike in plan.strikes
            ]
        report.strikes = [strike.result() for strike in strikes]
        healed = [began + struck.healed for struck in report.strikes]
        await _all_back(at, report.record)
        settings = OperatorSettings.load(at.state / "operator")
        report.books, report.findings = await audit(settings, _AUDIT_WITHIN)
        if not report.findings:
            report.quiet = time.monotonic() - max([report.record.last_asked, *healed])
        await returns.look_again()
    report.seconds = time.monotonic() - arrived
    return report


@dataclass(frozen=True)
class _Sale:
    """What only this run buys."""

    plenty: Sequence[Item]
    scarce: Sequence[Item]


async def _stock_up(at: Instance, http: httpx.AsyncClient) -> _Sale:
    staff = await shopping.staff(at, http)
    lantern = partial(new_product, "Storm lantern", variants=5, currency=at.currency)
    return _Sale(
        *[
            [item for _ in range(products) for item in await put_on_sale(staff, lantern(), stock)]
            for products, stock in (_PLENTY, _SCARCE)
        ]
    )


async def _go(
    journey: Journey, began: float, shoppers: asyncio.Queue[Shopper], sale: _Sale, returns: Returns
) -> None:
    await asyncio.sleep(max(0.0, began + journey.at - time.monotonic()))
    shopper = await shoppers.get()
    try:
        bought = await play(journey, shopper, sale.scarce if journey.scarce else sale.plenty)
    finally:
        shoppers.put_nowait(shopper)
    if journey.sends_back is not None and bought is not None:
        await returns.send_back(journey.sends_back, shopper, bought)


async def _strike(
    strike: Strike,
    began: float,
    injector: FaultInjector,
    probes: SteadyStateProbes,
    console: Console,
) -> Struck:
    await asyncio.sleep(max(0.0, began + strike.at - time.monotonic()))
    for _ in range(_STRIKE_TRIES):
        try:
            async with strike.fault.inject(injector, strike.target):
                struck_at = time.monotonic() - began
                await asyncio.sleep(strike.lasts)
        except NotRunning as missing:
            why = str(missing)
            await asyncio.sleep(0.25)  # it is being started after the fault before
        else:
            healed_at = time.monotonic() - began
            answers, sells = await probes.recovery(strike.target)
            healed = f"{struck_at:6.1f} s  {strike.target} {strike.fault.name}"
            after = "never" if sells is None else f"after {sells:.1f} s"
            console.print(Text(f"{healed}: sells again {after}"), soft_wrap=True)
            return Struck(strike, struck_at, healed_at, answers=answers, sells=sells)
    given_up = time.monotonic() - began
    return Struck(strike, given_up, given_up, skipped=why)


async def _all_back(at: Instance, record: Record) -> None:
    """Wait until the supervisor has everything running again."""
    missing = ""
    deadline = time.monotonic() + _BACK_WITHIN
    while time.monotonic() < deadline:
        status = Status.read(status_file(at))
        parts = status.parts if status else {}
        missing = ", ".join(
            name for name, part in parts.items() if part.state not in (State.READY, State.DONE)
        )
        if parts and not missing:
            return
        await asyncio.sleep(0.5)
    record.complain(f"not running again: {missing}")
