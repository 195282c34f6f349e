"""The supervisor, with parts that are little shell scripts."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types
import pytest

from stoa_chassis.testing import eventually
from stoa_stack import fingerprint, processes, supervisor
from stoa_stack.part import Part, with_needs
from stoa_stack.status import PartStatus, Phase, State, Status, held, is_held
from stoa_stack.supervisor import Ended, Supervisor


class Sandbox:
    """A folder in which parts leave traces: `<name>.up` when they have started, `order` as a diary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status_file = folder / "status.json"
        (folder / "logs").mkdir()

    def server(self, name: str, needs: Sequence[str] = (), script: str = "") -> Part:
        """A part that runs until it is told to stop."""
        run = f"""
            echo "{name} starts" | tee -a order
            {script}
            trap 'echo "{name} stops" >>order; exit 0' TERM
            echo $$ >{name}.up
            while :; do sleep 0.05; done
        """

        async def ready() -> None:
            assert (self.folder / f"{name}.up").exists(), "not up"

        def prepare(_: Callable[[str], None]) -> None:
            (self.folder / f"{name}.up").unlink(missing_ok=True)

        return Part(
            name=name, command=["sh", "-c", run], needs=needs, ready=ready, prepare=prepare, cwd=self.folder
        )

    def step(self, name: str, script: str, needs: Sequence[str] = ()) -> Part:
        """A part that ends by itself."""
        return Part(name=name, command=["sh", "-c", script], needs=needs, cwd=self.folder)

    @property
    def diary(self) -> list[str]:
        return (self.folder / "order").read_text().splitlines()

    def supervisor(self, *parts: Part, before: Status | None = None) -> Supervisor:
        return Supervisor(
            parts,
            instance=self.folder,
            logs=self.folder / "logs",
            status=self.status_file,
            environ=dict(os.environ),
            before=before,
        )

    @asynccontextmanager
    async def running(self, *parts: Part, before: Status | None = None) -> AsyncIterator[Supervisor]:
        """The parts, ready; stopped at the end, after which none of their processes is left."""
        watch = self.supervisor(*parts, before=before)
        run = asyncio.create_task(watch.run())
        await eventually(lambda: watch.status.phase not in (Phase.STARTING, Phase.APPLYING))
        try:
            assert watch.status.phase is Phase.READY, watch.status.failure
            yield watch
        finally:
            watch.stop()
            await run
        assert self.left() == []

    async def started_and_left(self, *parts: Part) -> Status:
        """What is written of parts whose supervisor was replaced when they were ready: they still run."""
        watch = self.supervisor(*parts)
        run = asyncio.create_task(watch.run())
        await eventually(lambda: watch.status.phase is Phase.READY)
        watch.replace()
        assert await run is Ended.REPLACED
        status = Status.read(self.status_file)
        assert status is not None
        return status

    def left(self) -> list[psutil.Process]:
        return processes.orphans(self.folder, ())


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


async def test_parts_start_after_what_they_need_and_stop_before_it(sandbox: Sandbox) -> None:
    service = sandbox.server("service", needs=["contracts"])
    contracts = sandbox.step("contracts", "echo contracts >>order", needs=["store"])
    async with sandbox.running(service, contracts, sandbox.server("store")) as watch:
        assert sandbox.diary == ["store starts", "contracts", "service starts"]
        assert watch.status.parts["contracts"].state is State.DONE
    assert sandbox.diary[3:] == ["service stops", "store stops"]


async def test_a_killed_part_is_started_again_and_the_others_are_left_alone(sandbox: Sandbox) -> None:
    async with sandbox.running(sandbox.server("store"), sandbox.server("service", needs=["store"])) as watch:
        store, service = watch.status.parts["store"], watch.status.parts["service"]
        killed, untouched = store.pid, service.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: store.pid not in (killed, None) and store.state is State.READY)
        assert store.restarts == 1
        assert service.pid == untouched


async def test_what_a_killed_part_leaves_behind_is_killed_before_it_starts_again(sandbox: Sandbox) -> None:
    part = sandbox.server("store", script="sleep 1000 & echo $! >worker")
    async with sandbox.running(part) as watch:
        worker = psutil.Process(int((sandbox.folder / "worker").read_text()))
        store = watch.status.parts["store"]
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await eventually(lambda: store.restarts == 1 and store.state is State.READY)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_a_part_that_keeps_dying_is_restarted_ever_more_slowly(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 0.05)
    doomed = sandbox.server("doomed", script="[ ! -e doom ] || exit 3; date +%s.%N >>starts")
    async with sandbox.running(doomed) as watch:
        (sandbox.folder / "doom").touch()
        status = watch.status.parts["doomed"]
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        began = time.monotonic()
        await eventually(lambda: status.restarts >= 5)
        assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4
        (sandbox.folder / "doom").unlink()
        await eventually(lambda: status.state is State.READY)


async def test_a_part_that_fails_is_named_with_its_reason_and_log_and_all_else_stops(
    sandbox: Sandbox,
) -> None:
    broken = sandbox.step("broken", "seq 30; echo no such column; exit 7", needs=["store"])
    watch = sandbox.supervisor(sandbox.server("store"), broken, sandbox.server("service", needs=["broken"]))
    assert await watch.run() is Ended.FAILED
    failure = watch.status.failure
    assert failure is not None
    assert (failure.part, failure.reason) == ("broken", "ended with exit code 7")
    assert failure.log == [*map(str, range(17, 31)), "no such column"]
    assert sandbox.diary == ["store starts", "store stops"]
    assert sandbox.left() == []
    written = Status.read(sandbox.status_file)
    assert written is not None
    assert written.phase is Phase.FAILED


async def test_a_server_that_dies_at_its_start_is_tried_again_before_it_counts_as_failed(
    sandbox: Sandbox,
) -> None:
    flaky = sandbox.server("flaky", script="[ -e second ] || { touch second; exit 1; }")
    async with sandbox.running(flaky) as watch:
        assert watch.status.parts["flaky"].restarts == 1
    watch = sandbox.supervisor(sandbox.server("dead", script="exit 1"))
    assert await watch.run() is Ended.FAILED
    assert sandbox.diary.count("dead starts") == supervisor.START_ATTEMPTS


async def test_a_server_that_never_gets_ready_fails_with_its_last_complaint(sandbox: Sandbox) -> None:
    async def never() -> None:
        raise ConnectionError("nobody there")

    silent = replace(sandbox.server("silent"), ready=never, ready_within_seconds=0.3)
    watch = sandbox.supervisor(silent)
    assert await watch.run() is Ended.FAILED
    failure = watch.status.failure
    assert failure is not None
    assert "ConnectionError: nobody there" in failure.reason
    assert sandbox.left() == []


async def test_a_part_that_can_not_be_prepared_or_executed_is_a_failure_of_that_part(
    sandbox: Sandbox,
) -> None:
    def no_disk(_: Callable[[str], None]) -> None:
        raise OSError("no space left")

    for broken, reason in (
        (replace(sandbox.server("store"), prepare=no_disk), "no space left"),
        (replace(sandbox.server("store"), command=["/no/such/program"]), "could not be started"),
    ):
        watch = sandbox.supervisor(broken)
        assert await watch.run() is Ended.FAILED
        assert watch.status.failure is not None
        assert watch.status.failure.part == "store"
        assert reason in watch.status.failure.reason


async def test_stopping_during_the_start_leaves_nothing(sandbox: Sandbox) -> None:
    watch = sandbox.supervisor(sandbox.server("store"), sandbox.step("slow", "sleep 1000", needs=["store"]))
    run = asyncio.create_task(watch.run())
    await eventually(lambda: watch.status.parts["slow"].pid is not None)
    watch.stop()
    assert await run is Ended.STOPPED
    assert watch.status.phase is Phase.STOPPED
    assert sandbox.left() == []


async def test_a_part_that_ignores_its_stop_signal_is_killed(sandbox: Sandbox) -> None:
    stubborn = sandbox.server(
        "stubborn", script="touch stubborn.up; trap '' TERM; while :; do sleep 0.05; done"
    )
    async with sandbox.running(replace(stubborn, stop_within_seconds=0.2)):
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_setup_runs_before_others_see_the_part_as_ready(sandbox: Sandbox) -> None:
    async def setup() -> None:
        (sandbox.folder / "order").open("a").write("roles created\n")

    store = replace(sandbox.server("store"), setup=setup)
    async with sandbox.running(store, sandbox.server("service", needs=["store"])):
        assert sandbox.diary == ["store starts", "roles created", "service starts"]


async def test_processes_of_a_supervisor_that_was_killed_are_found_and_ended(sandbox: Sandbox) -> None:
    status = await sandbox.started_and_left(sandbox.server("store"))
    left = processes.orphans(Path("/another/instance"), status.parts.values())
    assert status.parts["store"].pid in [process.pid for process in left]
    assert processes.orphans(Path("/another/instance"), ()) == []
    await asyncio.to_thread(processes.end, sandbox.left())
    assert sandbox.left() == []
    assert "store stops" in sandbox.diary


def test_a_process_id_that_is_used_again_is_not_taken_for_the_part(tmp_path: Path) -> None:
    stranger = psutil.Process(os.getppid())
    recorded = PartStatus(pid=stranger.pid, created=stranger.create_time() - 60)
    assert processes.orphans(tmp_path, [recorded]) == []


def test_the_lock_tells_if_a_supervisor_runs_even_after_it_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "lock"
    assert not is_held(lock)
    with held(lock) as first, held(lock) as second:
        assert first is not None
        assert second is None
        assert is_held(lock)
    assert not is_held(lock)


def test_needs_are_chosen_with_a_part_and_unknown_names_are_refused(sandbox: Sandbox) -> None:
    parts = [sandbox.server("store"), sandbox.server("service", needs=["store"]), sandbox.server("other")]
    assert [part.name for part in with_needs(parts, ["service"])] == ["store", "service"]
    with pytest.raises(KeyError):
        with_needs(parts, ["nobody"])


def test_a_log_over_its_limit_is_moved_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "store.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old " * 100)
        supervisor.rotate(log, limit=100)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "store.log.1").read_bytes() == b"old " * 100


async def test_a_new_supervisor_restarts_what_has_changed_and_only_that(sandbox: Sandbox) -> None:
    code = sandbox.folder / "code"
    code.write_text("one")
    changed = replace(sandbox.server("changed", needs=["store"]), reads=[code])
    settings = sandbox.server("settings", needs=["store"])
    untouched = sandbox.server("untouched", needs=["changed"])
    before = await sandbox.started_and_left(sandbox.server("store"), changed, settings, untouched)
    code.write_text("two")
    table = [sandbox.server("store"), changed, replace(settings, env={"LEVEL": "high"}), untouched]
    async with sandbox.running(*table, before=before) as watch:
        pids = {name: (before.parts[name].pid, part.pid) for name, part in watch.status.parts.items()}
        assert {name for name, (old, new) in pids.items() if old != new} == {"changed", "settings"}
        assert sandbox.diary[4:] == ["changed stops", "changed starts", "settings stops", "settings starts"]


async def test_a_new_supervisor_watches_what_it_took_over(sandbox: Sandbox) -> None:
    before = await sandbox.started_and_left(sandbox.server("store"))
    async with sandbox.running(sandbox.server("store"), before=before) as watch:
        store = watch.status.parts["store"]
        killed = store.pid
        assert killed is not None
        assert killed == before.parts["store"].pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: store.state is State.READY and store.pid not in (killed, None))
        assert store.restarts == 1


async def test_a_new_supervisor_starts_what_is_new_and_died_and_stops_what_is_removed(
    sandbox: Sandbox,
) -> None:
    before = await sandbox.started_and_left(
        sandbox.server("store"), sandbox.server("old"), sandbox.server("victim")
    )
    victim = before.parts["victim"].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    table = [sandbox.server("store"), sandbox.server("victim"), sandbox.server("new", needs=["victim"])]
    async with sandbox.running(*table, before=before) as watch:
        assert sandbox.diary[3:] == ["old stops", "victim starts", "new starts"]
        assert watch.status.parts.keys() == {"store", "victim", "new"}


async def test_a_step_runs_again_only_if_it_has_changed(sandbox: Sandbox) -> None:
    same = sandbox.step("same", "echo same >>order")
    other = sandbox.step("other", "echo other >>order")
    before = await sandbox.started_and_left(same, other)
    async with sandbox.running(same, replace(other, env={"TOPIC": "new"}), before=before):
        assert sorted(sandbox.diary[:2]) == ["other", "same"]
        assert sandbox.diary[2:] == ["other"]


async def test_a_change_that_does_not_start_is_named_and_the_rest_goes_on(sandbox: Sandbox) -> None:
    before = await sandbox.started_and_left(
        sandbox.server("store"), sandbox.server("service", needs=["store"])
    )
    broken = sandbox.server("store", script="[ -e mended ] || { echo no such column; exit 1; }")
    table = [broken, replace(sandbox.server("service", needs=["store"]), env={"LEVEL": "high"})]
    async with sandbox.running(*table, before=before) as watch:
        assert watch.status.failure is not None
        assert watch.status.failure.part == "store"
        assert "no such column" in watch.status.failure.log
        assert watch.status.parts["service"].pid == before.parts["service"].pid
        (sandbox.folder / "mended").touch()
        await eventually(lambda: watch.status.parts["store"].state is State.READY)


async def test_what_was_set_up_is_set_up_again_without_a_restart(sandbox: Sandbox) -> None:
    async def setup() -> None:
        (sandbox.folder / "order").open("a").write("roles created\n")

    store = replace(sandbox.server("store"), setup=setup)
    before = await sandbox.started_and_left(store)
    async with sandbox.running(store, before=before):
        assert sandbox.diary == ["store starts", "roles created", "roles created"]


async def test_configuration_is_written_before_the_start_and_its_change_is_a_reason_to_restart(
    sandbox: Sandbox,
) -> None:
    config = sandbox.folder / "config"
    before = await sandbox.started_and_left(
        replace(sandbox.server("edge", script="cat config >>order"), files=lambda: {config: b"old routes\n"})
    )
    changed = replace(
        sandbox.server("edge", script="cat config >>order"), files=lambda: {config: b"new routes\n"}
    )
    assert before.parts["edge"].fingerprint != fingerprint.of(changed)
    async with sandbox.running(changed, before=before) as watch:
        assert sandbox.diary == ["edge starts", "old routes", "edge stops", "edge starts", "new routes"]
        assert watch.status.parts["edge"].fingerprint == fingerprint.of(changed)


async def test_a_supervisor_that_is_replaced_in_the_middle_of_a_change_leaves_it_to_the_next(
    sandbox: Sandbox,
) -> None:
    first = sandbox.server("first")
    step = sandbox.step("step", "echo step >>order; [ -e quick ] || sleep 1000", needs=["first"])
    (sandbox.folder / "quick").touch()
    before = await sandbox.started_and_left(first, step)
    (sandbox.folder / "quick").unlink()
    changed = [first, replace(step, env={"TOPIC": "new"})]
    watch = sandbox.supervisor(*changed, before=before)
    run = asyncio.create_task(watch.run())
    await eventually(lambda: sandbox.diary.count("step") == 2)
    watch.replace()
    assert await run is Ended.REPLACED
    between = Status.read(sandbox.status_file)
    assert between is not None
    assert between.parts["first"].pid == before.parts["first"].pid
    (sandbox.folder / "quick").touch()
    async with sandbox.running(*changed, before=between) as watch:
        assert watch.status.parts["step"].state is State.DONE
        assert watch.status.parts["first"].pid == before.parts["first"].pid
