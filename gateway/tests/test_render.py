import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from stoa_contracts.descriptors import read
from stoa_gateway import EdgeSettings, RateLimits, envoy, render, write
from stoa_gateway.__main__ import main

from .conftest import ENVOY, ROUTES, SERVICES

SETTINGS = EdgeSettings(upstreams=dict.fromkeys(SERVICES, "127.0.0.1:1"), rate_limits=RateLimits())


def _routes(settings: EdgeSettings) -> list[dict[str, object]]:
    config = yaml.safe_load(render(settings, Path("/edge"))["envoy.yaml"])
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes: list[dict[str, object]] = manager["route_config"]["virtual_hosts"][0]["routes"]
    return routes


def test_exactly_the_rpcs_with_an_http_annotation_lead_to_a_service() -> None:
    public = {rpc.call_path for rpc in read().rpcs if rpc.routes}
    routed = {str(r["name"]) for r in _routes(SETTINGS) if "route" in r and r["name"] != "preflight"}
    assert routed == public


def test_the_same_settings_give_the_same_files() -> None:
    assert render(SETTINGS, Path("/edge")) == render(SETTINGS, Path("/edge"))


def test_a_service_without_an_upstream_is_an_error_that_names_it() -> None:
    upstreams = {name: address for name, address in SETTINGS.upstreams.items() if name != "order"}
    with pytest.raises(ValueError, match="order"):
        render(replace(SETTINGS, upstreams=upstreams), Path("/edge"))


def test_only_idempotent_rpcs_are_sent_again_when_a_service_may_have_read_them() -> None:
    retried = {r["name"] for r in _routes(SETTINGS) if "unavailable" in str(r.get("route"))}
    assert retried == {each.name for each in ROUTES if each.rpc.idempotent}
    assert "stoa.order.v1.OrderService/PlaceOrder" in retried
    assert "stoa.user.v1.UserService/CreateUser" not in retried


def test_beside_a_sidecar_services_are_called_by_their_names_and_their_instances_are_left_to_it() -> None:
    def clusters(settings: EdgeSettings) -> list[dict[str, object]]:
        config = yaml.safe_load(render(settings, Path("/edge"))["envoy.yaml"])
        return [each for each in config["static_resources"]["clusters"] if each["name"] in SERVICES]

    beside = replace(SETTINGS, sidecar=True)
    called = [r["route"] for r in _routes(beside) if "route" in r and r["name"] != "preflight"]
    assert all(route["auto_host_rewrite"] for route in called)  # type: ignore[index]
    assert all("health_checks" in each and "outlier_detection" in each for each in clusters(SETTINGS))
    assert not any("health_checks" in each or "outlier_detection" in each for each in clusters(beside))


def test_an_rpc_may_have_a_timeout_of_its_own() -> None:
    name = "stoa.payment.v1.PaymentService/RefundPayment"
    timeouts = {
        r["name"]: r["route"]["timeout"]  # type: ignore[index]
        for r in _routes(replace(SETTINGS, timeouts={name: 42}))
        if "timeout" in str(r.get("route"))
    }
    assert timeouts[name] == "42s"
    assert timeouts["stoa.order.v1.OrderService/GetOrder"] == "5s"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate_limits": None, "openapi": None},
        {"tls_dir": True, "access_log": "/dev/null", "trace_endpoint": "127.0.0.1:4317", "trusted_hops": 1},
        {"jwks_url": "https://issuer.example/keys", "cors_origins": ()},
        {"sidecar": True, "trusted_hops": 1},
    ],
    ids=["default", "bare", "full", "other issuer", "in a mesh"],
)
async def test_envoy_accepts_every_combination_of_settings(
    changes: dict[str, object], tmp_path: Path, certificates: Path
) -> None:
    if "tls_dir" in changes:
        changes = {**changes, "tls_dir": certificates / "edge"}
    config = write(replace(SETTINGS, **changes), tmp_path)  # type: ignore[arg-type]
    validation = await asyncio.create_subprocess_exec(
        ENVOY, "-c", config, "--mode", "validate", "--disable-hot-restart", stdout=-1, stderr=-2
    )
    output, _ = await validation.communicate()
    assert validation.returncode == 0, output.decode()[-2000:]


def test_the_command_line_writes_what_envoy_is_started_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = [word for name in SERVICES for word in ("--upstream", f"{name}={name}.stoa:8443")]
    main([str(tmp_path), *upstreams, "--port", "8000", "--no-rate-limits"])
    config = Path(capsys.readouterr().out.strip()).read_text()
    assert "order.stoa" in config
    assert "port_value: 8000" in config
    assert "limit.address" not in config
    with pytest.raises(SystemExit, match="no upstream for"):
        main([str(tmp_path), "--upstream", "order=order:1"])


def test_an_edge_that_listens_everywhere_asks_itself_for_the_keys_by_the_loopback() -> None:
    config = render(replace(SETTINGS, host="0.0.0.0"), Path("/edge"))["envoy.yaml"].decode()
    assert "http://127.0.0.1:8080/api/v1/auth/jwks" in config


def test_the_image_s_command_writes_the_files_and_becomes_envoy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append(command))
    upstreams = [f"--upstream={name}={name}:9000" for name in SERVICES]
    main([str(tmp_path / "edge"), "--start", "--concurrency", "1", *upstreams])
    assert started == [envoy.command(tmp_path / "edge" / "envoy.yaml", concurrency=1)]
    assert (tmp_path / "edge" / "envoy.yaml").exists()
