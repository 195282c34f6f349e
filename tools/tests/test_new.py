"""What `stoa new` writes, and what it refuses to write."""

import io
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from stoa_contracts.declarations import Store
from stoa_stack.instance import CHECKOUT
from stoa_tools.new.command import new, plural, render, tidy

SERVICE = """
port = {port}
[scale]
min = 1
max = 1
[resources]
memory_mb = 64
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "services" / "ferry"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "service.toml").write_text(SERVICE.format(port=117))
    return tmp_path


def said(name: str, checkout: Path) -> str:
    """What is said of a service that is not written."""
    output = io.StringIO()
    assert new(name, Store.POSTGRES, Console(file=output, width=200), checkout) == 2
    return output.getvalue()


@pytest.mark.parametrize("store", Store)
def test_every_store_has_a_complete_service(store: Store) -> None:
    files = render("parcel", store, 118)
    package = Path("services/parcel/stoa_parcel")
    modules = (
        "__init__",
        "__main__",
        "api",
        "model",
        "ports",
        "repository",
        "service",
        "settings",
        "testing",
    )
    assert {package / f"{module}.py" for module in modules} <= files.keys()
    declared = tomllib.loads(files[Path("services/parcel/service.toml")])
    assert (declared["port"], declared["store"]) == (118, store.value)
    # The address of a search engine may hold no password that could sign page tokens.
    assert declared.get("secrets", []) == (["page_token_key"] if store is Store.OPENSEARCH else [])
    tests = {path.name for path in files if path.parent.name == "tests"}
    assert {"test_model.py", "test_service.py", "test_repository.py", "test_api.py"} <= tests
    assert not any("{{" in text or "{%" in text for text in files.values())


@pytest.mark.parametrize("store", Store)
@pytest.mark.parametrize("name", ["ad", "recommendation"])
def test_short_and_long_names_are_in_the_style_of_the_rest(store: Store, name: str, tmp_path: Path) -> None:
    for path, text in render(name, store, 118).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    tidy(tmp_path)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run([ruff, "check", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_name_that_is_taken_is_refused(checkout: Path) -> None:
    assert "services/ferry/pyproject.toml is there already" in said("ferry", checkout)
    (checkout / "events").mkdir()
    (checkout / "events/product.created.avsc").touch()
    assert "events/product.created.avsc is there already" in said("product", checkout)


@pytest.mark.parametrize("name", ["Parcel", "my-parcel", "parcel2", "p", "../parcel", "par cel"])
def test_a_name_that_cannot_be_a_package_a_host_and_a_topic_is_refused(checkout: Path, name: str) -> None:
    assert "small letters" in said(name, checkout)
    assert sorted(path.name for path in checkout.iterdir()) == ["services"]


@pytest.mark.parametrize(
    ("one", "many"), [("parcel", "parcels"), ("story", "stories"), ("day", "days"), ("box", "boxes")]
)
def test_resources_have_a_plural(one: str, many: str) -> None:
    assert plural(one) == many
