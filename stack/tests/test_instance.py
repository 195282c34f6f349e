"""What is recorded of an instance, and how the environment changes it."""

from pathlib import Path

from stoa_stack.instance import Instance


def test_settings_are_recorded_at_the_start_and_what_names_the_instance_is_none(tmp_path: Path) -> None:
    environ = {
        "STOA_STATE": str(tmp_path),
        "STOA_PORT_BASE": "21000",
        "STOA_RATE_LIMITS": "off",
        "STOA_ORDER__LOG_LEVEL": "DEBUG",
        "GATEWAY_LATENCY_MS": "5",
        "HOME": "/home/shopper",
    }
    Instance.current(environ).configured(environ).record()
    at = Instance.current({"STOA_STATE": str(tmp_path)})
    assert at.port_base == 21000
    assert at.rate_limits is False
    assert at.settings == {
        "STOA_RATE_LIMITS": "off", "STOA_ORDER__LOG_LEVEL": "DEBUG", "GATEWAY_LATENCY_MS": "5",
    }  # fmt: skip
    assert (tmp_path / "instance.json").stat().st_mode & 0o077 == 0


def test_a_change_keeps_ports_and_settings_that_the_environment_does_not_name(tmp_path: Path) -> None:
    started = Instance(tmp_path).configured(
        {"STOA_PORT_BASE": "21000", "STOA_WORKERS": "2", "STOA_X__A": "1"}
    )
    changed = started.adjusted({"STOA_PORT_BASE": "25000", "STOA_X__A": "2", "STOA_MONGO_URL": "mongodb://m"})
    assert changed.port_base == 21000
    assert changed.settings == {"STOA_WORKERS": "2", "STOA_X__A": "2", "STOA_MONGO_URL": "mongodb://m"}
    assert changed.mongo_url == "mongodb://m"


def test_an_empty_value_takes_a_setting_back(tmp_path: Path) -> None:
    started = Instance(tmp_path).configured({"STOA_RATE_LIMITS": "off"})
    assert started.adjusted({"STOA_RATE_LIMITS": ""}).rate_limits is True


def test_the_record_of_another_version_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text('{"port_base": 21000, "colour": "blue"}')
    assert Instance.current({"STOA_STATE": str(tmp_path)}).port_base == 21000
