"""The contracts of all services, read from a descriptor set: routes, policies, constraints, who calls whom.

    for rpc in read().rpcs:
        rpc.full_name, rpc.route, rpc.policy, rpc.request

Options are read through a pool of their own, built from the very descriptors that declare them: a generator
must not use the generated code that it is about to replace, and whoever reads other descriptors has none.
Comments are there if the descriptors came with source info: a plugin of buf gets it, DESCRIPTORS has none.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    OneofDescriptorProto,
    ServiceDescriptorProto,
    SourceCodeInfo,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stoa_contracts.declarations import EDGE
from stoa_contracts.roles import STAFF, STAFF_ROLES, is_admitted

DESCRIPTORS = Path(__file__).with_name("stoa.binpb")
"""The descriptor set of all contracts, imports included."""

OPENAPI = Path(__file__).with_name("openapi.yaml")
"""The REST API as an OpenAPI document."""

_VERBS = ("get", "put", "post", "delete", "patch")
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=[^}]*)?\}")
_MESSAGE_TYPE, _ENUM_TYPE, _SERVICE = 4, 5, 6  # the fields of FileDescriptorProto, as comments are addressed
_FIELD, _NESTED_TYPE, _NESTED_ENUM, _VALUE, _METHOD = 2, 3, 4, 2, 2


class InvalidContract(ValueError):
    """A descriptor says what no program of ours can use; the message names which."""


@dataclass(frozen=True)
class Policy:
    """Who may call an RPC: `stoa.auth.v1.Policy`. The alternatives are OR-ed."""

    anyone: bool = False
    customer: bool = False
    staff: bool = False
    owner: str = ""
    services: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()
    """Which staff; empty: all of it."""
    guests: bool = False
    """Whether `customer` and `owner` mean guests too."""

    @property
    def alternatives(self) -> frozenset[str]:
        """The names of those that admit somebody."""
        return frozenset(
            name for name in ("anyone", "customer", "staff", "owner", "services") if getattr(self, name)
        )

    @property
    def admits_users(self) -> bool:
        """Whether there are users who may call, rather than services alone."""
        return bool(self.alternatives - {"services"})

    def admits_staff(self, *roles: str) -> bool:
        """Tell whether staff with these roles is admitted as such, whoever they are besides."""
        return self.staff and is_admitted(frozenset({STAFF, *roles}), self.roles)


@dataclass(frozen=True)
class Route:
    """One HTTP binding of an RPC: `google.api.http`.

    `body` is "" (none), "*" (all fields that the path does not bind) or the field of the request that the
    HTTP body is; `response_body` is the field of the response that the answer's body is, "" for the whole.
    """

    verb: str  # GET
    path: str
    body: str
    response_body: str

    @property
    def plain_path(self) -> str:
        """The path with its variables' names alone: {name} for {name=orders/*}."""
        return _VARIABLE.sub(r"{\1}", self.path)

    @property
    def variables(self) -> tuple[str, ...]:
        """The request's fields that the path holds, nested ones with dots, in its order."""
        return tuple(_VARIABLE.findall(self.path))

    @property
    def bound(self) -> frozenset[str]:
        """The fields of the request itself that the path binds."""
        return frozenset(variable.split(".")[0] for variable in self.variables)


@dataclass(frozen=True)
class Rpc:
    """A method of a gRPC service; `full_name` has dots: stoa.user.v1.UserService.GetUser."""

    full_name: str
    doc: str
    proto: MethodDescriptorProto
    service: str
    """Who answers it, by the name in service.toml: user."""
    policy: Policy | None
    routes: tuple[Route, ...]
    """Empty: it is internal, and the edge does not route it."""
    request: Descriptor
    response: Descriptor

    @property
    def name(self) -> str:
        """The name within the gRPC service."""
        return self.proto.name

    @property
    def call_path(self) -> str:
        """How gRPC names it on the wire, without the leading slash: stoa.user.v1.UserService/GetUser."""
        return "/".join(self.full_name.rsplit(".", 1))

    @property
    def route(self) -> Route | None:
        """The HTTP binding that the edge routes; None for an internal RPC."""
        return self.routes[0] if self.routes else None

    @property
    def idempotent(self) -> bool:
        """Whether it may be sent again."""
        return self.proto.options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN


@dataclass(frozen=True)
class RpcService:
    """A gRPC service and the comment that introduces it."""

    name: str
    full_name: str
    doc: str
    rpcs: tuple[Rpc, ...]


@dataclass(frozen=True)
class Type:
    """A message or an enum; full names have no leading dot."""

    full_name: str
    doc: str
    package: str
    proto: DescriptorProto | EnumDescriptorProto
    docs: Mapping[str, str]
    """The comments of its fields or values, by name."""

    @property
    def short_name(self) -> str:
        """The name within the package, nested ones joined: ListCategoriesResponseCategory."""
        return self.full_name.removeprefix(f"{self.package}.").replace(".", "")


def read(path: Path = DESCRIPTORS) -> "Contracts":
    """Return the contracts of a descriptor set in a file; raises InvalidContract."""
    return Contracts(FileDescriptorSet.FromString(path.read_bytes()).file)


class Contracts:
    """All services, messages and enums of some files, each file after those that it imports."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """Read them. Raises InvalidContract."""
        self.services: list[RpcService] = []
        self.types: dict[str, Type] = {}
        self._pool = DescriptorPool()
        for file in files:
            self._pool.Add(file)
            self._read(file)

    @property
    def rpcs(self) -> list[Rpc]:
        """The RPCs of all services."""
        return [rpc for service in self.services for rpc in service.rpcs]

    def callers(self, service: str) -> Mapping[str, list[str]]:
        """Return who may call a service over the mesh: each identity's RPCs, by their paths on the wire.

        A service may call what lists it, and the edge, which speaks for users, what admits any. Whom of them
        it admits, the service itself decides.
        """
        callers: dict[str, list[str]] = defaultdict(list)
        for rpc in self.rpcs:
            if rpc.service == service and rpc.policy is not None:
                for caller in (*([EDGE] if rpc.policy.admits_users else []), *rpc.policy.services):
                    callers[caller].append(f"/{rpc.call_path}")
        return {caller: sorted(paths) for caller, paths in sorted(callers.items())}

    def calls(self) -> Mapping[str, set[str]]:
        """Return the other services that each calls: those with an RPC whose policy admits it."""
        calls: dict[str, set[str]] = defaultdict(set)
        for rpc in self.rpcs:
            for caller in rpc.policy.services if rpc.policy else ():
                if caller != rpc.service:
                    calls[caller].add(rpc.service)
        return calls

    def option(
        self,
        of: DescriptorProto | FieldDescriptorProto | MethodDescriptorProto | OneofDescriptorProto,
        extension: str,
    ) -> Any:
        """The value of an option such as `google.api.http`; None, or an empty list, if it is not given."""
        try:
            known: Any = self._pool.FindExtensionByName(extension)
        except KeyError:  # no file declares it, so none uses it
            return None
        options: Message = GetMessageClass(
            self._pool.FindMessageTypeByName(of.options.DESCRIPTOR.full_name)
        ).FromString(of.options.SerializeToString())
        if known.is_repeated or options.HasExtension(known):
            return options.Extensions[known]
        return None

    def _read(self, file: FileDescriptorProto) -> None:
        comments = {tuple(place.path): _text(place) for place in file.source_code_info.location}
        for index, service in enumerate(file.service):
            self.services.append(self._service(file, service, (_SERVICE, index), comments))
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
        self,
        file: FileDescriptorProto,
        service: ServiceDescriptorProto,
        place: tuple[int, ...],
        comments: dict[tuple[int, ...], str],
    ) -> RpcService:
        name = f"{file.package}.{service.name}"
        rpcs = tuple(
            self._rpc(file, f"{name}.{method.name}", method, comments.get((*place, _METHOD, index), ""))
            for index, method in enumerate(service.method)
        )
        return RpcService(service.name, name, comments.get(place, ""), rpcs)

    def _rpc(self, file: FileDescriptorProto, name: str, method: MethodDescriptorProto, doc: str) -> Rpc:
        return Rpc(
            full_name=name,
            doc=doc,
            proto=method,
            service=file.package.removeprefix("stoa.").partition(".")[0],
            policy=_policy(name, self.option(method, "stoa.auth.v1.policy")),
            routes=_routes(name, self.option(method, "google.api.http")),
            request=self._pool.FindMessageTypeByName(method.input_type.removeprefix(".")),
            response=self._pool.FindMessageTypeByName(method.output_type.removeprefix(".")),
        )


def _policy(name: str, declared: Any) -> Policy | None:
    if declared is None:
        return None
    admits = {name: declared.HasField(name) for name in ("anyone", "customer", "staff")}
    roles = frozenset(declared.staff.roles)
    if unknown := roles - STAFF_ROLES:
        raise InvalidContract(
            f"{name} admits staff with the role {min(unknown)!r}; there are {', '.join(sorted(STAFF_ROLES))}"
        )
    return Policy(
        **admits,
        owner=declared.owner,
        services=tuple(declared.services),
        roles=roles,
        guests=declared.guests,
    )


def _routes(name: str, rule: Any) -> tuple[Route, ...]:
    if rule is None:
        return ()
    routes = []
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb not in _VERBS:
            raise InvalidContract(f"{name} has an HTTP binding without a verb")
        routes.append(Route(verb.upper(), getattr(binding, verb), binding.body, binding.response_body))
    return tuple(routes)


def _text(place: SourceCodeInfo.Location) -> str:
    lines = (line.strip() for line in place.leading_comments.strip().splitlines())
    return "\n".join(lines)
