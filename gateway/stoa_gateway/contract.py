"""What the edge needs to know of the contract: the public RPCs, read from the descriptor set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from stoa.auth.v1 import policy_pb2

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=[^}]*)?\}")
_RAW = "google.api.HttpBody"  # a body that is passed on byte for byte
_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
_ANYTHING = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Any"})
_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_STRING: "string",
}


@dataclass(frozen=True)
class Rpc:
    """A public RPC.

    `body` is "" (none), "*" (all fields that the path does not bind) or the field of the request that the
    HTTP body is; `response_body` is the field of the response that the answer's body is, "" for the whole.
    """

    name: str  # stoa.order.v1.OrderService/PlaceOrder
    service: str  # order
    http_method: str
    path: str
    body: str
    response_body: str
    idempotent: bool
    anyone: bool
    method: MethodDescriptor

    @property
    def regex(self) -> str:
        """The paths of this RPC."""
        return "".join(
            re.escape(part) if number % 2 == 0 else "[^/:]+"
            for number, part in enumerate(_VARIABLE.split(self.path))
        )

    @property
    def signs_in(self) -> bool:
        """Whether it is about becoming somebody: a stale token in its header must not be in the way."""
        return ".AuthService/" in self.name

    @property
    def takes_json(self) -> bool:
        """Whether its body is a JSON object."""
        return bool(self.body) and self._body_type().full_name != _RAW

    @property
    def bound(self) -> frozenset[str]:
        """The request's fields that the path binds."""
        return frozenset(variable.split(".")[0] for variable in _VARIABLE.findall(self.path))

    def query_fields(self) -> list[FieldDescriptor]:
        """The fields that query parameters may set: single values of the request itself."""
        if self.body == "*":
            return []
        elsewhere = self.bound | {self.body}
        return [
            field
            for field in self.method.input_type.fields
            if field.name not in elsewhere
            and (field.message_type is None or field.message_type.full_name in _TEXT)
        ]

    def body_fields(self) -> list[FieldDescriptor]:
        """The fields that the JSON body may have."""
        fields = self._body_type().fields
        return [f for f in fields if f.name not in self.bound] if self.body == "*" else list(fields)

    def _body_type(self) -> Descriptor:
        request = self.method.input_type
        if self.body == "*":
            return request
        message = request.fields_by_name[self.body].message_type
        assert message is not None, f"{self.name}: body must be a message"
        return message


def public_rpcs(descriptors: Path) -> list[Rpc]:
    """Return the RPCs that have a route, the more specific paths first; see AIP-127 for routes."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return sorted(_public(files, pool), key=lambda rpc: (rpc.path.count("{"), rpc.path, rpc.http_method))


def transcodable(descriptors: Path) -> bytes:
    """Return the descriptor set without `response_body`: Envoy refuses it, so the Lua filter does it."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    method.options.Extensions[annotations_pb2.http].ClearField("response_body")
    return files.SerializeToString(deterministic=True)


def _public(files: Any, pool: descriptor_pool.DescriptorPool) -> Iterator[Rpc]:
    for file in files.file:
        for declared in file.service:
            service = pool.FindServiceByName(f"{file.package}.{declared.name}")
            for method in declared.method:
                http: http_pb2.HttpRule = method.options.Extensions[annotations_pb2.http]
                verb = http.WhichOneof("pattern")
                if verb is None:
                    continue
                policy = method.options.Extensions[policy_pb2.policy]
                yield Rpc(
                    name=f"{service.full_name}/{method.name}",
                    service=file.package.split(".")[1],
                    http_method=verb.upper(),
                    path=getattr(http, verb),
                    body=http.body,
                    response_body=http.response_body,
                    idempotent=method.options.idempotency_level
                    != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
                    anyone=policy.HasField("anyone"),
                    method=service.methods_by_name[method.name],
                )


def kind(field: FieldDescriptor) -> str:
    """Name what JSON a single value of the field may be; messages and enums go by their full names."""
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "string"
    message = field.message_type
    if message is None:
        return _KINDS[field.cpp_type]
    if message.full_name in _TEXT:
        return "string"
    if message.full_name in _ANYTHING:
        return "any"
    return str(message.full_name)
