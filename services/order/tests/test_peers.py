"""What the use cases get of the other services."""

from dataclasses import asdict
from typing import Any

import grpc
import pytest

from stoa.types.v1 import address_pb2
from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis.errors import InvalidArgument, NotFound
from stoa_chassis.ids import new_id
from stoa_chassis.testing import serve_in_process
from stoa_order.peers import AddressBook
from stoa_order.testing import ADDRESS


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """The user service, with one address or none."""

    def __init__(self, kept: address_pb2.Address | None) -> None:
        self._kept = kept

    async def GetAddress(self, request: user_pb2.GetAddressRequest, _: Any) -> user_pb2.GetAddressResponse:
        if self._kept is None:
            raise NotFound("there is no such address")
        return user_pb2.GetAddressResponse(address=self._kept)


async def kept(address: address_pb2.Address | None) -> Any:
    """The address as orders get it."""

    def add(servicer: UserServicer, server: grpc.aio.Server) -> None:
        user_pb2_grpc.add_UserServiceServicer_to_server(servicer, server)

    servicer = UserServicer(address)  # type: ignore[abstract]
    async with serve_in_process(add, servicer, name="user") as server:
        book = AddressBook(server.stub(user_pb2_grpc.UserServiceStub, as_service="order"))
        return await book.address(new_id(), new_id())


async def test_no_part_of_an_address_is_lost() -> None:
    assert await kept(address_pb2.Address(**asdict(ADDRESS))) == ADDRESS


async def test_an_address_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="address_id: is not in your address book"):
        await kept(None)


async def test_an_address_from_before_they_were_checked_has_to_be_corrected() -> None:
    older = asdict(ADDRESS) | {"country": "DE", "city": ""}
    with pytest.raises(InvalidArgument) as refused:
        await kept(address_pb2.Address(**older))
    (violation,) = refused.value.violations
    assert (violation.field, violation.description) == (
        "address_id",
        "please correct the address in your address book: city must not be empty in an address of Germany; "
        "postal code is not a postal code of Germany; an example is 26133",
    )
