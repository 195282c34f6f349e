"""The stack that tests run on. As a pytest plugin it is started when a chosen test needs it, and kept.

`stoa test PATH…` runs pytest with this plugin: the first run that chooses a test marked `stack` starts the
stack; the next finds it there, brings it to what the checkout says now and goes on in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.servers import mongo, opensearch, postgres, valkey
from stoa_stack.terminal import console
from stoa_stack.throwaway import SHORT_WAITS, port_base, run
from stoa_stack.up import is_running

# The tests' own instance: it never meets the one of `make up`.
STATE = CHECKOUT / ".stoa-test"


def servers(at: Instance) -> Mapping[str, str]:
    """Where tests find the servers; see `stoa_chassis.testing_stores`."""
    return {
        "STOA_TEST_POSTGRES": postgres.superuser_url(at, "postgres"),
        "STOA_TEST_MONGO": mongo.mongo_url(at),
        "STOA_TEST_OPENSEARCH": opensearch.opensearch_url(at),
        "STOA_TEST_REDIS": valkey.superuser_url(at),
        "STOA_TEST_KAFKA": at.address("kafka"),
        "STOA_TEST_REGISTRY": at.registry_url,
    }


def keep(to: Console) -> Mapping[str, str]:
    """Have the stack run what the checkout has now; returns the environment that leads tests to it.

    Raises typer.Exit if it does not start.
    """
    named = {"STOA_STATE": str(STATE)}
    at = Instance.current(named)
    if is_running(at):
        run(to, "stack", "stoa", "apply", env=named)
    else:
        with port_base() as base:
            run(to, "stack", "stoa", "up", env={**named, **SHORT_WAITS, "STOA_PORT_BASE": str(base)})
    return {**named, **servers(Instance.current(named))}


def drop(to: Console) -> None:
    """Stop the stack that is kept, and delete its data; raises typer.Exit if that fails."""
    run(to, "stack down", "stoa", "reset", env={"STOA_STATE": str(STATE)})


def pytest_collection_finish(session: pytest.Session) -> None:
    """Lead the chosen tests to the stack, if one of them needs it."""
    if session.config.option.collectonly or not any(map(_needs_stack, session.items)):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    try:
        with capture.global_and_fixture_disabled():
            os.environ |= keep(console())
    except typer.Exit:
        pytest.exit("the stack that the tests need does not run", returncode=1)


def _needs_stack(item: pytest.Item) -> bool:
    return item.get_closest_marker("stack") is not None and item.get_closest_marker("own_stack") is None
