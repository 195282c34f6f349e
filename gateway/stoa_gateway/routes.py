"""What the edge routes: the public RPCs of the contracts, as Envoy's configuration needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from stoa_contracts.descriptors import Contracts, Route, Rpc

_RAW = "google.api.HttpBody"  # a body that is passed on byte for byte
TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
"""Messages that JSON writes as a string."""


@dataclass(frozen=True)
class EdgeRoute:
    """A public RPC with the HTTP binding that the edge routes."""

    rpc: Rpc
    route: Route

    @property
    def name(self) -> str:
        """The RPC, as Envoy's transcoder names it: stoa.order.v1.OrderService/PlaceOrder."""
        return self.rpc.call_path

    @property
    def regex(self) -> str:
        """The paths of this RPC."""
        literals_and_variables = re.split(r"\{([^}]*)\}", self.route.path)
        return "".join(
            re.escape(part) if number % 2 == 0 else "[^/:]+"
            for number, part in enumerate(literals_and_variables)
        )

    @property
    def anyone(self) -> bool:
        """Whether no token is needed."""
        return self.rpc.policy is not None and self.rpc.policy.anyone

    @property
    def signs_in(self) -> bool:
        """Whether it is about becoming somebody: a stale token in its header must not be in the way."""
        return ".AuthService/" in self.name

    @property
    def is_costly(self) -> bool:
        """Whether anyone may have something made or checked: an account, a guest, a password, a mail."""
        return self.anyone and self.route.verb == "POST" and (self.takes_json or self.signs_in)

    @property
    def takes_json(self) -> bool:
        """Whether its body is a JSON object."""
        return bool(self.route.body) and self._body_type().full_name != _RAW

    @property
    def unwrap(self) -> str:
        """The field of the response that is the answer and that Envoy does not take out itself; else ""."""
        return "" if self.answers_file else self.route.response_body

    @property
    def answers_file(self) -> bool:
        """Whether what is answered is passed on byte for byte."""
        field = self.rpc.response.fields_by_name.get(self.route.response_body)
        return field is not None and field.message_type is not None and field.message_type.full_name == _RAW

    def query_fields(self) -> list[FieldDescriptor]:
        """The fields that query parameters may set: single values of the request itself."""
        if self.route.body == "*":
            return []
        elsewhere = self.route.bound | {self.route.body}
        return [
            field
            for field in self.rpc.request.fields
            if field.name not in elsewhere
            and (field.message_type is None or field.message_type.full_name in TEXT)
        ]

    def body_fields(self) -> list[FieldDescriptor]:
        """The fields that the JSON body may have."""
        fields = self._body_type().fields
        whole = self.route.body == "*"
        return [field for field in fields if not (whole and field.name in self.route.bound)]

    def _body_type(self) -> Descriptor:
        request = self.rpc.request
        if self.route.body == "*":
            return request
        message = request.fields_by_name[self.route.body].message_type
        assert message is not None, f"{self.name}: body must be a message"
        return message


def edge_routes(contracts: Contracts) -> list[EdgeRoute]:
    """Return what the edge routes, the more specific paths first; see AIP-127 for routes."""
    routes = [EdgeRoute(rpc, rpc.route) for rpc in contracts.rpcs if rpc.route]
    return sorted(routes, key=lambda each: (each.route.path.count("{"), each.route.path, each.route.verb))


def transcodable(descriptors: Path) -> bytes:
    """Return the descriptor set without `response_body`: Envoy refuses it, so the Lua filter does it.

    Only a file Envoy takes out of the response itself, and passes it on as it is.
    """
    files = FileDescriptorSet.FromString(descriptors.read_bytes())
    with_file = {
        f".{file.package}.{message.name}"
        for file in files.file
        for message in file.message_type
        if any(field.type_name == f".{_RAW}" for field in message.field)
    }
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http) and method.output_type not in with_file:
                    method.options.Extensions[annotations_pb2.http].ClearField("response_body")
    return files.SerializeToString(deterministic=True)
