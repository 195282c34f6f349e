from pathlib import Path

import pytest
from pydantic import ValidationError

from stoa_chassis.settings import PostgresSettings, RedisSettings, ServiceSettings


class BothSettings(PostgresSettings, RedisSettings):
    pass


def test_secrets_come_from_files_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stoa_database_url").write_text("postgresql://from-file\n")
    (tmp_path / "stoa_redis_url").write_text("redis://from-file")
    monkeypatch.setenv("STOA_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("STOA_REDIS_URL", "redis://from-environment")
    settings = BothSettings()
    assert settings.database_url == "postgresql://from-file"
    assert settings.redis_url == "redis://from-environment"


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_DATABASE_URL", "postgresql://order:hunter2@db/order")
    assert "hunter2" not in repr(PostgresSettings())


def test_a_service_knows_only_the_address_of_its_own_store() -> None:
    assert "redis_url" not in PostgresSettings.model_fields
    assert "database_url" not in ServiceSettings.model_fields


def test_ports_are_those_of_the_declaration_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_METRICS_PORT", "0")
    settings = ServiceSettings.load("order")
    assert (settings.port, settings.metrics_port) == (18104, 0)
    assert ServiceSettings.load("example").port == 0


def test_each_worker_has_a_name_of_its_own_in_the_consumer_group_if_its_process_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, of_the_second in (("order-0", "order-0-1"), ("", "")):
        monkeypatch.setenv("STOA_GROUP_INSTANCE_ID", name)
        settings = ServiceSettings()
        settings.become_worker(1)
        assert settings.group_instance_id == of_the_second


def test_a_consumer_that_does_not_come_back_is_replaced_within_four_seconds_by_default() -> None:
    assert ServiceSettings().group_session_seconds <= 3  # and what the rebalance takes


@pytest.mark.parametrize("code", ["usd", "DOLLAR", "XXX", "JPY"])
def test_a_currency_that_amounts_cannot_be_in_is_refused(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_CURRENCY", code)
    with pytest.raises(ValidationError, match="no currency of ISO 4217"):
        ServiceSettings()
