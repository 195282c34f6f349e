"""Rendered objects against the schemas that a cluster has: those of Kubernetes, and of custom resources.

A field that a schema doesn't know is refused, as it is mistyped: a cluster would drop it in silence.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from stoa_tools import programs
from stoa_tools.charts.policy import Object, name

# Run apart from our own packages: its schemas of all versions are some megabytes that nothing else needs.
_PACKAGE = "kubernetes-validate==1.37.0"
_KUBERNETES = "kubernetes-json-schema/v1.34.0-local-strict/_definitions.json"
# Where each module keeps its definitions of custom resources.
_DEFINITIONS = {
    "istio": "kubernetes/customresourcedefinitions.gen.yaml",
    "argo-cd": "manifests/crds/*-crd.yaml",
    "argo-rollouts": "manifests/crds/*.yaml",
    "prometheus-operator": "example/prometheus-operator-crd/*_servicemonitors.yaml",
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


class Schemas:
    """The schemas of all kinds of objects, by their apiVersion and kind."""

    def __init__(self, kubernetes: Mapping[str, Any], custom: Iterable[Object]) -> None:
        """Know Kubernetes' own kinds by their definitions in JSON Schema, and others by their CRDs."""
        self._schemas: dict[_Kind, Mapping[str, Any]] = {
            (f"{each['group']}/{each['version']}".removeprefix("/"), each["kind"]): {
                **kubernetes,
                "$ref": f"#/$defs/{definition}",
            }
            for definition, schema in kubernetes["$defs"].items()
            for each in schema.get("x-kubernetes-group-version-kind", ())
        }
        for resource in custom:
            for version in resource["spec"]["versions"]:
                kind = f"{resource['spec']['group']}/{version['name']}", resource["spec"]["names"]["kind"]
                self._schemas[kind] = _strict(version["schema"]["openAPIV3Schema"], top=True)

    @classmethod
    def published(cls) -> Schemas:
        """Those of Kubernetes and of the modules that define what charts use. Raises BuildFailed."""
        files = (file for module, glob in _DEFINITIONS.items() for file in programs.source(module).glob(glob))
        documents = (document for file in files for document in yaml.load_all(file.read_text(), _Loader))
        custom = (each for each in documents if each and each["kind"] == "CustomResourceDefinition")
        return cls(json.loads((_package() / _KUBERNETES).read_text()), custom)

    def violations(self, thing: Object) -> Iterator[str]:
        """What is wrong with an object, in words; of one that is unpublished nothing can be known."""
        if unpublished(thing):
            return
        schema = self._schemas.get((thing["apiVersion"], thing["kind"]))
        if schema is None:
            yield f"{name(thing)}: nobody knows a {thing['kind']} of {thing['apiVersion']}"
        else:
            for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
                yield f"{name(thing)}: {error.json_path}: {error.message}"


def unpublished(thing: Object) -> bool:
    """Whether an object is of a kind whose schema nobody publishes where we could get it."""
    return thing["apiVersion"].partition("/")[0] in _UNPUBLISHED


def _package() -> Path:
    uv = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
    where = "import kubernetes_validate; print(kubernetes_validate.__path__[0])"
    done = subprocess.run(
        [uv, "tool", "run", "--quiet", "--from", _PACKAGE, "python", "-c", where],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise programs.BuildFailed(f"{_PACKAGE}: {done.stderr.strip()}")
    return Path(done.stdout.strip())


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
