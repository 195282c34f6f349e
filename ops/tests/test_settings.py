"""Where operators' tools find the shop."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stoa_ops import local
from stoa_ops.__main__ import app
from stoa_ops.settings import OperatorSettings, SettingsMissing
from stoa_services import SERVICES
from stoa_stack import operators
from stoa_stack.certificates import Authority
from stoa_stack.instance import Instance


def test_settings_are_files_in_a_folder_and_there_are_some_for_every_service(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOA_OPS_DIR", str(mounted))
    settings = OperatorSettings.load()
    assert settings.kafka_bootstrap == "kafka.internal:9092"
    for name in SERVICES:
        assert settings.store_url(name) == f"store://readonly@{name}.internal"
        assert settings.metrics_url(name) == f"http://{name}.internal:9090/metrics"


def test_a_variable_wins_over_a_file(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_OPS_ORDER_URL", "postgresql://elsewhere")
    assert OperatorSettings.load(mounted).store_url("order") == "postgresql://elsewhere"


def test_a_local_instance_is_meant_if_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STOA_OPS_DIR", raising=False)
    monkeypatch.setenv("STOA_STATE", str(tmp_path))
    assert local.operator_folder() == tmp_path / "operator"


def test_what_a_local_instance_writes_is_all_that_the_tools_need(tmp_path: Path) -> None:
    at = Instance(tmp_path)
    operators.write(at, Authority(at.folder("certs")))
    settings = OperatorSettings.load(tmp_path / "operator")
    assert settings.kafka_bootstrap == at.address("kafka")
    assert "stoa_readonly" in settings.store_url("order")


def test_of_a_shop_elsewhere_nothing_on_this_machine_is_looked_at(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOA_OPS_DIR", str(mounted))
    assert not local.is_down()
    assert not local.usage()


def test_passwords_are_not_shown(settings: OperatorSettings) -> None:
    assert "readonly@" not in repr(settings)
    assert "secret" not in repr(settings)


def test_what_is_missing_is_named(mounted: Path) -> None:
    (mounted / "cart_url").unlink()
    (mounted / "kafka_bootstrap").unlink()
    with pytest.raises(SettingsMissing, match=f"missing: kafka_bootstrap, cart_url. Files in {mounted}"):
        OperatorSettings.load(mounted)


def test_a_command_without_settings_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOA_OPS_DIR", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(app, ["audit"])
    assert result.exit_code == 2
    assert "order_url" in result.output
