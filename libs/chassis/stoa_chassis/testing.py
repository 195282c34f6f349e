"""What tests of a servicer need: the real thing in one process.

    async with serve_in_process(add_CartServiceServicer_to_server, CartServicer(carts)) as server:
        cart = server.stub(CartServiceStub, as_user=user_id)
        with pytest.raises(RemoteError) as refused:
            await cart.AddItem(AddItemRequest(user_id=someone_else))
        assert refused.value.reason == "NOT_OWNER"

Calls go over a socket with mTLS and certificates of a throw-away CA, through the chassis' interceptor, with
tokens signed by a throw-away key: a policy, a constraint or an error that holds here holds in production.
A peer that the code under test calls is faked the same way: serve a fake servicer, and give the code a stub
from that server with `as_service` set to the service under test.

What happens elsewhere (in another task, process or server) is waited for with `eventually`; what happens
later is there at once with a `SettableClock`.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from inspect import isawaitable
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from stoa_chassis.auth import Authorizer, certificate_identity
from stoa_chassis.breaker import Breaker
from stoa_chassis.clients import ClientChannel
from stoa_chassis.ids import new_id
from stoa_chassis.server import RpcServer
from stoa_chassis.tls import CertificateFolder
from stoa_chassis.tokens import StaticKeys, TokenVerifier
from stoa_contracts.declarations import EDGE
from stoa_contracts.roles import ADMIN, STAFF

SPIFFE_PREFIX = "spiffe://stoa.local/ns/stoa/sa/"
ISSUER = AUDIENCE = "stoa"

_Stub = TypeVar("_Stub")


class SettableClock:
    """Stands still at the moment at which it was made until a test moves it on."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.at

    def advance(self, **time: float) -> None:
        """Let time go by, said as to `timedelta`: `clock.advance(hours=25)`."""
        self.at += timedelta(**time)


class TokenMint:
    """Issues tokens as the user service does, with a key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = str(new_id())

    @property
    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        algorithm = jwt.get_algorithm_by_name("ES256")
        key: Mapping[str, Any] = algorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self._kid, "use": "sig", "alg": "ES256"}]}

    def token(
        self,
        user_id: str,
        *,
        staff: bool = False,
        staff_roles: tuple[str, ...] = (),
        ttl: float = 900,
        **claims: Any,
    ) -> str:
        """Return a token of a user; `claims` replace or add to the usual ones.

        `staff` makes it one of an admin, `staff_roles` one of staff with these roles.
        """
        now = time.time()
        if staff:
            staff_roles = (*staff_roles, ADMIN)
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "iat": int(now),
            "exp": now + ttl,
            "roles": ["customer", *([STAFF, *staff_roles] if staff_roles else [])],
        }
        return jwt.encode(payload | claims, self._key, "ES256", {"kid": self._kid})


class CertificateAuthority:
    """Issues certificates that name a service as the stack's do: by SPIFFE id, DNS names and 127.0.0.1."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("throw-away CA")
        self._certificate = (
            _certificate(name, name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, service: str, folder: Path) -> Path:
        """Write cert.pem, key.pem and ca.pem of a service into the folder, and return the folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(SPIFFE_PREFIX + service),
                x509.DNSName(f"{service}.stoa.internal"),
                x509.DNSName("localhost"),
                x509.IPAddress(ip_address("127.0.0.1")),
            ]
        )
        certificate = (
            _certificate(_name(service), self._certificate.subject, key)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(pem)
        (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (folder / "ca.pem").write_bytes(self._certificate.public_bytes(Encoding.PEM))
        return folder


@dataclass
class InProcessServer:
    """A server under test."""

    name: str
    target: str
    mint: TokenMint
    _folder: Path
    _channels: list[ClientChannel]

    def stub(
        self,
        stub_type: Callable[[grpc.aio.Channel], _Stub],
        *,
        as_user: object = None,
        staff: bool = False,
        staff_roles: tuple[str, ...] = (),
        guest: bool = False,
        as_service: str | None = None,
        token: str | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> _Stub:
        """Return a stub that calls as somebody: a user through the edge, a service, or nobody in particular.

        A user may be an admin (`staff`), staff with some roles, or a guest. `token` is sent as it is, for
        tests of tokens that are not right; `metadata` is what else is sent.
        """
        if as_user is not None:
            token = self.mint.token(str(as_user), staff=staff, staff_roles=staff_roles, guest=guest)
        channel = ClientChannel(
            self.name,
            self.target,
            self.certificates(as_service or EDGE),
            metadata=(*metadata, *((("authorization", f"Bearer {token}"),) if token is not None else ())),
            breaker=Breaker(self.name, threshold=1_000_000),
        )
        self._channels.append(channel)
        return channel.stub(stub_type)

    def certificates(self, service: str) -> CertificateFolder:
        """Return certificates of a service, from the CA that the server trusts."""
        return CertificateFolder(_authority().issue(service, self._folder / service))


@asynccontextmanager
async def serve_in_process(
    add_to_server: Callable[[Any, grpc.aio.Server], None],
    servicer: object,
    *,
    name: str = "under-test",
    max_concurrent_rpcs: int = 200,
) -> AsyncIterator[InProcessServer]:
    """Serve a servicer as in production on a free port of 127.0.0.1, and end with the block.

    A fake may leave methods out; they answer UNIMPLEMENTED.
    """
    mint = _mint()
    verifier = TokenVerifier(StaticKeys(mint.jwks), ISSUER, AUDIENCE)
    authorizer = Authorizer(certificate_identity(SPIFFE_PREFIX), verifier)
    server = RpcServer(authorizer, max_concurrent_rpcs=max_concurrent_rpcs, partial=True)
    server.add(add_to_server, servicer)
    with TemporaryDirectory() as folder:
        certificates = CertificateFolder(_authority().issue(name, Path(folder) / "server"))
        port = await server.start("127.0.0.1:0", certificates.server_credentials())
        await server.set_ready(True)
        running = InProcessServer(name, f"127.0.0.1:{port}", mint, Path(folder), [])
        try:
            yield running
        finally:
            for channel in running._channels:
                await channel.close()
            await server.drain(0)


async def eventually(
    look: Callable[[], Any], within: float = 20.0, *, despite: tuple[type[Exception], ...] = ()
) -> Any:
    """Look (a plain or an async function) until there is something true to see, and return it.

    A look that raises one of `despite` saw nothing yet. Raises AssertionError after `within` seconds, with
    what was seen last.
    """
    seen: object = None
    pause = 0.01
    try:
        async with asyncio.timeout(within) as limit:
            while True:
                try:
                    found = look()
                    if seen := await found if isawaitable(found) else found:
                        return seen
                except despite as error:
                    seen = error
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.1)  # many who look often would slow down what they look for
    except TimeoutError:
        if not limit.expired():
            raise
        name = getattr(look, "__qualname__", repr(look))
        raise AssertionError(f"{name} did not come true within {within} s, but was {seen!r}") from None


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@cache
def _authority() -> CertificateAuthority:
    return CertificateAuthority()


@cache
def _mint() -> TokenMint:
    return TokenMint()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )
