"""The settings of operators' tools for an instance: `operator/` in its state folder.

One file for each setting, as a Job in a cluster gets them mounted: addresses, URLs whose accounts may read
and change nothing, and a certificate of the identity `operator`. Only their owner can read them.
"""

from __future__ import annotations

from stoa_services import SERVICES
from stoa_stack.certificates import Authority
from stoa_stack.companies import COMPANIES
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.stores import STORES

IDENTITY = "operator"


def write(at: Instance, authority: Authority) -> None:
    """Write the files, and remove those of services that are gone."""
    folder = at.folder("operator")
    wanted = settings(at)
    for name, value in wanted.items():
        write_atomically(folder / name, value)
    for path in folder.iterdir():
        if path.is_file() and path.name not in wanted:
            path.unlink()
    authority.ensure(IDENTITY)
    certificates = folder / "certs"
    if not certificates.is_symlink():
        certificates.symlink_to(authority.folder / IDENTITY)


def settings(at: Instance) -> dict[str, str]:
    """Each setting by the name of its file."""
    found = {
        "kafka_bootstrap": at.address("kafka"),
        "schema_registry_url": at.registry_url,
        "edge_url": at.edge_url,
    }
    for company in COMPANIES.values():
        name = company.name.replace("-", "_")
        found[f"{name}_url"] = company.page_url(at)
        if company.api_key:
            found[f"{name}_api_key"] = company.secret(at, company.api_key)
    for service in SERVICES.values():
        found[f"{service.name}_target"] = at.address(service.name)
        found[f"{service.name}_metrics_url"] = f"http://{at.address(f'{service.name}-metrics')}/metrics"
        if service.store is not None:
            found[f"{service.name}_url"] = STORES[service.store].read_only_url(at, service.name)
    return found
