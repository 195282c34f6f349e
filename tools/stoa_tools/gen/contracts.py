"""The contracts as descriptors, with their options and comments at hand.

A generator must not use the generated code that it is about to replace, so options are read through a pool of
their own, built from the very descriptors that declare them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    OneofDescriptorProto,
    ServiceDescriptorProto,
    SourceCodeInfo,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_MESSAGE_TYPE, _ENUM_TYPE, _SERVICE = 4, 5, 6  # the fields of FileDescriptorProto, as comments are addressed
_FIELD, _NESTED_TYPE, _NESTED_ENUM, _VALUE, _METHOD = 2, 3, 4, 2, 2


@dataclass(frozen=True)
class Service:
    """A service and the comment that introduces it."""

    name: str
    full_name: str
    doc: str
    methods: tuple["Method", ...]


@dataclass(frozen=True)
class Method:
    """An RPC; `full_name` has dots: stoa.user.v1.UserService.GetUser."""

    full_name: str
    doc: str
    proto: MethodDescriptorProto

    @property
    def name(self) -> str:
        """The name within the service."""
        return self.proto.name


@dataclass(frozen=True)
class Type:
    """A message or an enum; full names have no leading dot."""

    full_name: str
    doc: str
    package: str
    proto: DescriptorProto | EnumDescriptorProto
    docs: dict[str, str]
    """The comments of its fields or values, by name."""

    @property
    def short_name(self) -> str:
        """The name within the package, nested ones joined: ListCategoriesResponseCategory."""
        return self.full_name.removeprefix(f"{self.package}.").replace(".", "")


class Contracts:
    """All services, messages and enums of some files."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self.services: list[Service] = []
        self.types: dict[str, Type] = {}
        self._pool = DescriptorPool()
        for file in files:
            self._pool.Add(file)
            self._read(file)

    def option(
        self,
        of: DescriptorProto | FieldDescriptorProto | MethodDescriptorProto | OneofDescriptorProto,
        extension: str,
    ) -> Any:
        """The value of an option such as `google.api.http`; None, or an empty list, if it is not given."""
        known: Any = self._pool.FindExtensionByName(extension)
        options: Message = GetMessageClass(
            self._pool.FindMessageTypeByName(of.options.DESCRIPTOR.full_name)
        ).FromString(of.options.SerializeToString())
        if known.is_repeated or options.HasExtension(known):
            return options.Extensions[known]
        return None

    def _read(self, file: FileDescriptorProto) -> None:
        comments = {tuple(place.path): _text(place) for place in file.source_code_info.location}
        for index, service in enumerate(file.service):
            self.services.append(_service(file, service, (_SERVICE, index), comments))
        for index, message in enumerate(file.message_type):
            self._add_message(file.package, file.package, message, (_MESSAGE_TYPE, index), comments)
        for index, enum in enumerate(file.enum_type):
            self._add_enum(file.package, file.package, enum, (_ENUM_TYPE, index), comments)

    def _add_message(
        self,
        package: str,
        scope: str,
        message: DescriptorProto,
        place: tuple[int, ...],
        comments: dict[tuple[int, ...], str],
    ) -> None:
        name = f"{scope}.{message.name}"
        docs = {
            field.name: comments.get((*place, _FIELD, index), "") for index, field in enumerate(message.field)
        }
        self.types[name] = Type(name, comments.get(place, ""), package, message, docs)
        for index, nested in enumerate(message.nested_type):
            self._add_message(package, name, nested, (*place, _NESTED_TYPE, index), comments)
        for index, enum in enumerate(message.enum_type):
            self._add_enum(package, name, enum, (*place, _NESTED_ENUM, index), comments)

    def _add_enum(
        self,
        package: str,
        scope: str,
        enum: EnumDescriptorProto,
        place: tuple[int, ...],
        comments: dict[tuple[int, ...], str],
    ) -> None:
        name = f"{scope}.{enum.name}"
        docs = {
            value.name: comments.get((*place, _VALUE, index), "") for index, value in enumerate(enum.value)
        }
        self.types[name] = Type(name, comments.get(place, ""), package, enum, docs)


def _service(
    file: FileDescriptorProto,
    service: ServiceDescriptorProto,
    place: tuple[int, ...],
    comments: dict[tuple[int, ...], str],
) -> Service:
    name = f"{file.package}.{service.name}"
    methods = tuple(
        Method(f"{name}.{method.name}", comments.get((*place, _METHOD, index), ""), method)
        for index, method in enumerate(service.method)
    )
    return Service(service.name, name, comments.get(place, ""), methods)


def _text(place: SourceCodeInfo.Location) -> str:
    lines = (line.strip() for line in place.leading_comments.strip().splitlines())
    return "\n".join(lines)
