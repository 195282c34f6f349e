"""An instance of the stack: a state folder and a port base.

Several can live on one machine. What an instance was started with is recorded in its state folder, so that
`stoa down`, `status` and `logs` act on what runs and not on what the environment says now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stoa_stack import ports
from stoa_stack.files import private_folder, write_atomically

CHECKOUT = Path(__file__).resolve().parents[2]
# What is set for the parts begins so; these say which instance is meant, and are no settings of it.
DEFAULT_CURRENCY = "USD"
_PREFIXES = ("STOA_", "GATEWAY_", "CARRIERS_")
_NAMES_THE_INSTANCE = frozenset({"STOA_STATE", "STOA_PORT_BASE", "STOA_EDGE_PORT", "STOA_INSTANCE"})


@dataclass(frozen=True)
class Instance:
    """Where one stack keeps its state, which ports it takes and what its environment set.

    `settings` are the variables of the environment of `stoa up` that set something for the parts, `only` the
    parts that were asked for (none: all). `revision` tells one record of the instance from the next. In a
    cluster each part is on a host of its own: `addresses` has the `host:port` of those that are not on this
    machine's ports, and `listen_host` is where the servers listen.
    """

    state: Path
    port_base: int = ports.DEFAULT_BASE
    edge_port: int = ports.DEFAULT_EDGE
    rate_limits: bool = True
    mongo_url: str = ""  # a MongoDB to use instead of starting one
    opensearch_url: str = ""  # an OpenSearch to use instead of starting one
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    only: tuple[str, ...] = ()
    revision: str = ""
    listen_host: str = ports.HOST
    addresses: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def current(cls, environ: Mapping[str, str] = os.environ) -> Instance:
        """The instance that STOA_STATE names, as it was recorded when it was last started.

        Raises ValueError if a port in the environment is not a number.
        """
        state = Path(environ.get("STOA_STATE") or CHECKOUT / ".stoa").resolve()
        try:
            recorded = json.loads((state / "instance.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return cls(state=state).configured(environ)
        known = {name: recorded[name] for name in cls.__dataclass_fields__ if name in recorded}
        return cls(**(known | {"state": state, "only": tuple(recorded.get("only", ()))}))

    def configured(self, environ: Mapping[str, str] = os.environ) -> Instance:
        """This instance with what the environment asks for: how `stoa up` starts it."""
        base = int(environ.get("STOA_PORT_BASE") or self.port_base)
        derived = ports.DEFAULT_EDGE if base == ports.DEFAULT_BASE else base + ports.offset("edge")
        kept = (
            self.edge_port if base == self.port_base and (self.state / "instance.json").exists() else derived
        )
        ports_taken = replace(self, port_base=base, edge_port=int(environ.get("STOA_EDGE_PORT") or kept))
        return ports_taken._with(_settings_in(environ))

    def adjusted(self, environ: Mapping[str, str] = os.environ) -> Instance:
        """This instance with the settings that the environment changes: how `stoa apply` leaves it.

        What the environment does not name stays as it was set; an empty value takes a setting back. Ports
        stay.
        """
        merged = {**self.settings, **_settings_in(environ)}
        return self._with({name: value for name, value in merged.items() if value})

    def _with(self, settings: Mapping[str, str]) -> Instance:
        return replace(
            self,
            settings=dict(settings),
            rate_limits=settings.get("STOA_RATE_LIMITS", "on").lower() not in ("off", "false", "0"),
            mongo_url=settings.get("STOA_MONGO_URL", ""),
            opensearch_url=settings.get("STOA_OPENSEARCH_URL", ""),
        )

    def record(self) -> None:
        """Write the instance down in its state folder, for its owner alone: a setting may be a secret."""
        fields = asdict(self) | {"state": str(self.state), "settings": dict(self.settings)}
        write_atomically(self.state / "instance.json", json.dumps(fields, indent=2) + "\n")

    def port(self, name: str) -> int:
        """The port of a server, by its name in the table of ports."""
        if elsewhere := self.addresses.get(name):
            return int(elsewhere.rpartition(":")[2])
        return self.edge_port if name == "edge" else self.port_base + ports.offset(name)

    def address(self, name: str) -> str:
        """`host:port` of a server, for those who ask it something."""
        return self.addresses.get(name) or f"{ports.HOST}:{self.port(name)}"

    @property
    def currency(self) -> str:
        """What the shop sells in (ISO 4217)."""
        return self.settings.get("STOA_CURRENCY") or DEFAULT_CURRENCY

    @property
    def edge_url(self) -> str:
        """Where a shopper's browser finds the shop."""
        return f"http://{self.address('edge')}"

    @property
    def registry_url(self) -> str:
        """The schema registry's Confluent-compatible API."""
        return f"http://{self.address('registry')}/apis/ccompat/v7"

    def folder(self, *parts: str) -> Path:
        """A folder below the state folder, made if it is not there, closed to other users."""
        return private_folder(self.state.joinpath(*parts))


def _settings_in(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_PREFIXES) and name not in _NAMES_THE_INSTANCE
    }
