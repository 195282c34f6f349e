from pathlib import Path

import pytest

from stoa_chassis.settings import ServiceSettings


def test_secrets_come_from_files_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stoa_database_url").write_text("postgresql://from-file\n")
    (tmp_path / "stoa_redis_url").write_text("redis://from-file")
    monkeypatch.setenv("STOA_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("STOA_REDIS_URL", "redis://from-environment")
    settings = ServiceSettings()
    assert settings.database_url == "postgresql://from-file"
    assert settings.redis_url == "redis://from-environment"


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_DATABASE_URL", "postgresql://order:hunter2@db/order")
    assert "hunter2" not in repr(ServiceSettings())
