"""The package stoa_services: the declaration of each service, with those that the policies let it call."""

from pathlib import Path

from stoa_contracts.declarations import InvalidDeclaration, Service, read_all
from stoa_contracts.descriptors import Contracts
from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.template import render


def generate(checkout: Path, contracts: Contracts, out: Path) -> tuple[Service, ...]:
    """Write the package `out` for all services of a checkout, and return what it says of them.

    Raises:
        GenerationFailed: a declaration is wrong, or a policy admits a service that there isn't.
    """
    calls = contracts.calls()
    try:
        services = read_all(checkout, calls)
    except InvalidDeclaration as error:
        raise GenerationFailed(str(error)) from error
    if strangers := calls.keys() - {service.name for service in services}:
        raise GenerationFailed(f"proto/: a policy admits {', '.join(sorted(strangers))}: no such service")
    out.mkdir(parents=True)
    (out / "__init__.py").write_text(render("services.py.jinja", services=services))
    (out / "py.typed").touch()
    return services
