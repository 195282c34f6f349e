from pathlib import Path

import pytest

from stoa_contracts.declarations import InvalidDeclaration, Resources, Scale, Service, Store, read_all

ORDER = """
port = 104
store = "postgres"
publishes = ["order.placed"]
consumes = ["payment.failed"]
secrets = ["signing_key"]
companies = ["payment-gateway"]
[scale]
min = 2
max = 6
[resources]
memory_mb = 96
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "events").mkdir()
    for topic in ("order.placed", "payment.failed"):
        (tmp_path / "events" / f"{topic}.avsc").touch()
    declare(tmp_path, "order", ORDER)
    return tmp_path


def declare(checkout: Path, name: str, declaration: str) -> None:
    folder = checkout / "services" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").touch()
    (folder / "service.toml").write_text(declaration)


def test_reads_what_is_declared(checkout: Path) -> None:
    assert read_all(checkout, {"order": {"user", "cart"}}) == (
        Service(
            name="order",
            port=104,
            store=Store.POSTGRES,
            publishes=("order.placed",),
            consumes=("payment.failed",),
            calls=("cart", "user"),
            secrets=("signing_key",),
            companies=("payment-gateway",),
            scale=Scale(2, 6),
            resources=Resources(96),
        ),
    )


def test_what_follows_from_a_declaration(checkout: Path) -> None:
    (order,) = read_all(checkout)
    assert (order.package, order.metrics_port, order.dead_letters) == ("stoa_order", 204, "order.dlq")


def test_reads_may_be_answered_from_another_store_than_the_data_is_in(checkout: Path) -> None:
    (order,) = read_all(checkout)
    assert order.stores == (Store.POSTGRES,)
    declare(checkout, "order", ORDER.replace('"postgres"', '"mongo"\nread_model = "postgres"'))
    (order,) = read_all(checkout)
    assert (order.store, order.read_model) == (Store.MONGO, Store.POSTGRES)
    assert order.stores == (Store.MONGO, Store.POSTGRES)
    declare(checkout, "order", ORDER.replace('store = "postgres"', ""))
    (order,) = read_all(checkout)
    assert order.stores == ()


def test_who_consumes_nothing_has_no_dead_letters(checkout: Path) -> None:
    declare(checkout, "order", ORDER.replace('["payment.failed"]', "[]"))
    (order,) = read_all(checkout)
    assert order.dead_letters is None


def test_services_come_in_the_order_of_their_ports(checkout: Path) -> None:
    declare(checkout, "zoo", ORDER.replace("104", "100").replace('["order.placed"]', "[]"))
    assert [service.name for service in read_all(checkout)] == ["zoo", "order"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("port = 104", "port = 1040", "port must be a number from 100 to 199"),
        ("port = 104", "", "port must be"),
        ("port = 104", 'port = "104"', "port must be"),
        ('"postgres"', '"oracle"', "store must be one of postgres, mongo, redis, opensearch"),
        ("secrets", 'read_model = "oracle"\nsecrets', "read_model must be one of postgres, mongo, redis"),
        ("secrets", 'read_model = "postgres"\nsecrets', "read_model is postgres, which is the store itself"),
        ('["order.placed"]', '["order.planned"]', "publishes has 'order.planned', but there is no events/"),
        ('["order.placed"]', '"order.placed"', "publishes must be a list of texts"),
        ('["payment.failed"]', '["payment.failed", "payment.failed"]', "consumes has 'payment.failed' twice"),
        ("signing_key", "signing key", "secrets has 'signing key', which is no name"),
        ("secrets", "secret", "secret is not known"),
        ("min = 2", "min = 2\ncpu = 1", "scale.cpu is not known"),
        ("min = 2", "min = 7", "scale.min must not be more than scale.max"),
        ("memory_mb", "memory", "resources.memory is not known"),
        ("96", "0", "resources.memory_mb must be a number from 16"),
        ("port = 104", "port: 104", "is not TOML"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(checkout: Path, old: str, new: str, complaint: str) -> None:
    declare(checkout, "order", ORDER.replace(old, new))
    with pytest.raises(InvalidDeclaration) as refused:
        read_all(checkout)
    assert str(refused.value).startswith("services/order/service.toml")
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (ORDER.replace('["order.placed"]', "[]"), "port has 104, which is order's already"),
        (ORDER.replace("104", "105"), "publishes has order.placed, which is order's already"),
    ],
)
def test_two_services_never_share_a_port_or_a_topic(checkout: Path, other: str, complaint: str) -> None:
    declare(checkout, "payment", other)
    with pytest.raises(InvalidDeclaration, match=complaint):
        read_all(checkout)


def test_every_service_has_a_declaration(checkout: Path) -> None:
    declare(checkout, "user", "")
    (checkout / "services/user/service.toml").unlink()
    with pytest.raises(InvalidDeclaration, match=r"services/user/service\.toml is missing"):
        read_all(checkout)


@pytest.mark.parametrize(
    ("name", "complaint"), [("edge", "is the edge's"), ("Cart", "must be small letters")]
)
def test_a_service_has_a_name_of_its_own(checkout: Path, name: str, complaint: str) -> None:
    declare(checkout, name, ORDER)
    with pytest.raises(
        InvalidDeclaration, match=f"services/{name}/service.toml: the folder's name {complaint}"
    ):
        read_all(checkout)
