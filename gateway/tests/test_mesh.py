"""How the edge and the services know each other."""

import shutil
from pathlib import Path
from uuid import uuid4

import grpc
from cryptography import x509

from stoa_chassis.testing import eventually
from stoa_stack.certificates import Authority, spiffe_id

from .conftest import SERVICES, reason, running, serving


def _credentials(folder: Path) -> grpc.ServerCredentials:
    key, chain, ca = ((folder / name).read_bytes() for name in ("key.pem", "cert.pem", "ca.pem"))
    return grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)


async def test_the_edge_talks_only_to_the_service_that_it_means(certificates: Path, tmp_path: Path) -> None:
    async with (
        serving(_credentials(certificates / "catalog")) as (services, address),
        running(tmp_path, upstreams=dict.fromkeys(SERVICES, address), tls_dir=certificates / "edge") as edge,
    ):

        async def listed() -> bool:
            return (await edge.client.get("/api/v1/products")).is_success

        await eventually(listed)
        shown = x509.load_pem_x509_certificate(services.last.certificate)
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id("edge")]
        calls = len(services.calls)
        # At the address of inventory there is somebody with the catalog's certificate.
        answer = await edge.client.get(f"/api/v1/inventory/{uuid4()}")
        assert (answer.status_code, reason(answer)) == (503, "UPSTREAM_UNAVAILABLE")
        assert len(services.calls) == calls


async def test_a_rotated_certificate_is_used_without_a_restart(certificates: Path, tmp_path: Path) -> None:
    issued = tmp_path / "certificates"
    shutil.copytree(certificates, issued)
    credentials = _credentials(issued / "catalog")
    async with serving(credentials) as (_, address):
        pass
    upstreams = dict.fromkeys(SERVICES, address)
    async with running(tmp_path / "edge", upstreams=upstreams, tls_dir=issued / "edge") as edge:

        async def certificate_shown() -> bytes:
            # Only a new connection shows a new certificate, so the service starts anew.
            async with serving(credentials, address) as (services, _):

                async def listed() -> bool:
                    return (await edge.client.get("/api/v1/products")).is_success

                await eventually(listed)
                return services.last.certificate

        old = (issued / "edge" / "cert.pem").read_bytes()
        assert await certificate_shown() == old
        Authority(issued).issue("edge")
        new = (issued / "edge" / "cert.pem").read_bytes()
        assert new != old

        async def renewed() -> bool:
            return await certificate_shown() == new

        await eventually(renewed)
