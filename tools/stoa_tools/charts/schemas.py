"""Rendered objects against the schemas that a cluster has: those of Kubernetes, and of custom resources.

A field that a schema doesn't know is refused, as it is mistyped: a cluster would drop it in silence.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from stoa_tools import programs
from stoa_tools.charts.policy import Object, name

KUBERNETES = "1.34"
# Its schemas of all versions are some megabytes that nothing else needs.
_VALIDATOR = "kubernetes-validate==1.37.0"
# Where each module keeps its definitions of custom resources.
_DEFINITIONS = {
    "istio": "kubernetes/customresourcedefinitions.gen.yaml",
    "argo-rollouts": "manifests/crds/*.yaml",
    "prometheus-operator": "example/prometheus-operator-crd/*.yaml",
    "external-secrets": "config/crds/bases/external-secrets.io_*.yaml",
    "gateway-api": "config/crd/standard/*.yaml",
    "cert-manager": "deploy/crds/cert-manager.io_*.yaml",
    "cloudnative-pg": "config/crd/bases/postgresql.cnpg.io_*.yaml",
    "barman-cloud": "config/crd/bases/barmancloud.cnpg.io_*.yaml",
    "percona-mongodb": "config/crd/bases/psmdb.percona.com_perconaservermongodbs.yaml",
}
# Groups whose definitions no package brings: operators in Java, and such as publish no module.
_UNPUBLISHED = (
    "k8s.keycloak.org",
    "kafka.strimzi.io",
    "opensearch.org",
    "rds.valkey.buf.red",
    "registry.apicur.io",
    "valkey.buf.red",
)
_Kind = tuple[str, str]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # whichever there is
    """To whom `=` is a text, as to Kubernetes; in YAML 1.1 it was something else."""


_Loader.add_constructor("tag:yaml.org,2002:value", _Loader.construct_yaml_str)


class CustomResources:
    """The schemas of custom resources, by their apiVersion and kind."""

    def __init__(self, definitions: Iterable[Object]) -> None:
        self._schemas = {
            (
                f"{definition['spec']['group']}/{version['name']}",
                definition["spec"]["names"]["kind"],
            ): _strict(version["schema"]["openAPIV3Schema"], top=True)
            for definition in definitions
            for version in definition["spec"]["versions"]
        }

    @classmethod
    def published(cls) -> CustomResources:
        """Those of the modules that define what the charts use. Raises BuildFailed."""
        files = (file for module, glob in _DEFINITIONS.items() for file in programs.source(module).glob(glob))
        documents = (document for file in files for document in yaml.load_all(file.read_text(), _Loader))
        return cls(each for each in documents if each and each["kind"] == "CustomResourceDefinition")

    def __contains__(self, thing: Object) -> bool:
        """Whether there is a schema for an object."""
        return _kind(thing) in self._schemas

    def violations(self, thing: Object) -> Iterator[str]:
        """What an object of theirs breaks."""
        for error in jsonschema.Draft202012Validator(self._schemas[_kind(thing)]).iter_errors(thing):
            yield f"{name(thing)}: {error.json_path}: {error.message}"


def violations(things: Iterable[Object], custom: CustomResources) -> list[str]:
    """Return what is wrong with rendered objects, in words; of some operators' nothing can be known."""
    known: list[Object] = []
    problems: list[str] = []
    for thing in things:
        if thing in custom:
            problems += custom.violations(thing)
        elif thing["apiVersion"].partition("/")[0] not in _UNPUBLISHED:
            known.append(thing)
    return problems + _of_kubernetes(known)


def _of_kubernetes(things: list[Object]) -> list[str]:
    """What Kubernetes' own schemas refuse, kinds that it does not have among them."""
    if not things:
        return []
    uv = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(things, file)
        file.flush()
        done = subprocess.run(
            [
                uv, "tool", "run", "--quiet", "--from", _VALIDATOR, "kubernetes-validate",
                "--kubernetes-version", KUBERNETES, "--strict", "--quiet", file.name,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = [line.replace(f" {file.name}", "") for line in done.stdout.splitlines()]
    return found or ([done.stderr.strip()] if done.returncode else [])


def _kind(thing: Object) -> _Kind:
    return thing["apiVersion"], thing["kind"]


def _strict(schema: Mapping[str, Any], *, top: bool = False) -> dict[str, Any]:
    """The schema of a custom resource as JSON Schema has it, with no fields but those that it names."""
    strict: dict[str, Any] = dict(schema)
    if "properties" in schema:
        properties: dict[str, Any] = {key: _strict(value) for key, value in schema["properties"].items()}
        if top:  # what every object has stands in few of these schemas
            properties |= dict.fromkeys(("apiVersion", "kind", "metadata"), True)
        strict["properties"] = properties
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            strict[key] = _strict(schema[key])
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
        strict.pop("anyOf", None)
    if schema.get("nullable"):
        strict["type"] = [strict["type"], "null"]
    return strict
