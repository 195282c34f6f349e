"""A servicer that behaves as the request's text says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from chassis_example.echo_pb2 import EchoRequest, EchoResponse, ListRequest, PutRequest
from chassis_example.echo_pb2_grpc import EchoServicer as Base
from chassis_example.echo_pb2_grpc import PagedServicer as PagedBase

from stoa_chassis import context
from stoa_chassis.auth import current_principal
from stoa_chassis.errors import FailedPrecondition, InvalidArgument, Unavailable
from stoa_chassis.ids import new_id


class OutOfStock(FailedPrecondition):
    reason = "OUT_OF_STOCK"


class EchoServicer(Base):
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cancelled = asyncio.Event()
        self.released = asyncio.Event()
        """Ends the calls that wait for it."""

    async def _echo(self, request: EchoRequest) -> EchoResponse:
        self.calls[request.text] += 1
        match request.text.split(":"):
            case ["who"]:
                caller = current_principal()
                return EchoResponse(text=f"{caller.subject} {caller.service} {sorted(caller.roles)}")
            case ["whose"]:
                return EchoResponse(text=current_principal().user_id)
            case ["for-another"]:
                return EchoResponse(text=str(current_principal().may_act_for(str(new_id()))))
            case ["correlation"]:
                return EchoResponse(text=context.correlation_id())
            case ["deadline"]:
                return EchoResponse(text=str(context.remaining()))
            case ["sleep", seconds]:
                try:
                    await asyncio.sleep(float(seconds))
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            case ["wait"]:
                await self.released.wait()
            case ["out-of-stock"]:
                raise OutOfStock("only 2 left", metadata={"variant": "v1"}, retry_after=timedelta(seconds=3))
            case ["crash"]:
                raise ZeroDivisionError("secret detail")
            case ["store-down"]:
                raise ConnectionRefusedError("10.0.0.1 refused")
            case ["flaky", times] if self.calls[request.text] <= int(times):
                raise Unavailable("not yet")
            case ["down"]:
                raise Unavailable("down")
            case ["wrong-type"]:
                return "not a message"
        return EchoResponse(text=request.text)

    async def Anyone(self, request: EchoRequest, _: Any) -> EchoResponse:
        return await self._echo(request)

    async def Put(self, request: PutRequest, _: Any) -> EchoResponse:
        raise InvalidArgument(request.text, "is not what it was")

    async def Count(self, request: EchoRequest, _: Any) -> AsyncIterator[EchoResponse]:
        for number in range(request.quantity):
            yield EchoResponse(text=str(number))
        if request.text:
            yield await self._echo(request)

    Customer = Staff = Warehouse = CustomerOrWarehouse = Anyone
    Owner = GuestOwner = NestedOwner = OwnerOrStaff = Anyone
    Internal = Read = Write = Replace = Anyone


class PagedServicer(PagedBase):
    async def List(self, request: ListRequest, _: Any) -> EchoResponse:
        return EchoResponse()
