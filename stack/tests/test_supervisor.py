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


class Stage:
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
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_parts_start_after_what_they_need_and_stop_before_it(stage: Stage) -> None:
    service = stage.server("service", needs=["contracts"])
    contracts = stage.step("contracts", "echo contracts >>order", needs=["store"])
    async with stage.running(service, contracts, stage.server("store")) as watch:
        assert stage.diary == ["store starts", "contracts", "service starts"]
        assert watch.status.parts["contracts"].state is State.DONE
    assert stage.diary[3:] == ["service stops", "store stops"]


async def test_a_killed_part_is_started_again_and_the_others_are_left_alone(stage: Stage) -> None:
    async with stage.running(stage.server("store"), stage.server("service", needs=["store"])) as watch:
        store, service = watch.status.parts["store"], watch.status.parts["service"]
        killed, untouched = store.pid, service.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: store.pid not in (killed, None) and store.state is State.READY)
        assert store.restarts == 1
        assert service.pid == untouched


async def test_what_a_killed_part_leaves_behind_is_killed_before_it_starts_again(stage: Stage) -> None:
    part = stage.server("store", script="sleep 1000 & echo $! >worker")
    async with stage.running(part) as watch:
        worker = psutil.Process(int((stage.folder / "worker").read_text()))
        store = watch.status.parts["store"]
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await eventually(lambda: store.restarts == 1 and store.state is State.READY)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_a_part_that_keeps_dying_is_restarted_ever_more_slowly(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 0.05)
    doomed = stage.server("doomed", script="[ ! -e doom ] || exit 3; date +%s.%N >>starts")
    async with stage.running(doomed) as watch:
        (stage.folder / "doom").touch()
        status = watch.status.parts["doomed"]
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        began = time.monotonic()
        await eventually(lambda: status.restarts >= 5)
        assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4
        (stage.folder / "doom").unlink()
        await eventually(lambda: status.state is State.READY)


async def test_a_part_that_fails_is_named_with_its_reason_and_log_and_all_else_stops(stage: Stage) -> None:
    broken = stage.step("broken", "seq 30; echo no such column; exit 7", needs=["store"])
    watch = stage.supervisor(stage.server("store"), broken, stage.server("service", needs=["broken"]))
    assert await watch.run() is Ended.FAILED
    failure = watch.status.failure
    assert failure is not None
    assert (failure.part, failure.reason) == ("broken", "ended with exit code 7")
    assert failure.log == [*map(str, range(17, 31)), "no such column"]
    assert stage.diary == ["store starts", "store stops"]
    assert stage.left() == []
    written = Status.read(stage.status_file)
    assert written is not None
    assert written.phase is Phase.FAILED


async def test_a_server_that_dies_at_its_start_is_tried_again_before_it_counts_as_failed(
    stage: Stage,
) -> None:
    flaky = stage.server("flaky", script="[ -e second ] || { touch second; exit 1; }")
    async with stage.running(flaky) as watch:
        assert watch.status.parts["flaky"].restarts == 1
    watch = stage.supervisor(stage.server("dead", script="exit 1"))
    assert await watch.run() is Ended.FAILED
    assert stage.diary.count("dead starts") == supervisor.START_ATTEMPTS


async def test_a_server_that_never_gets_ready_fails_with_its_last_complaint(stage: Stage) -> None:
    async def never() -> None:
        raise ConnectionError("nobody there")

    silent = replace(stage.server("silent"), ready=never, ready_within_seconds=0.3)
    watch = stage.supervisor(silent)
    assert await watch.run() is Ended.FAILED
    failure = watch.status.failure
    assert failure is not None
    assert "ConnectionError: nobody there" in failure.reason
    assert stage.left() == []


async def test_a_part_that_can_not_be_prepared_or_executed_is_a_failure_of_that_part(stage: Stage) -> None:
    def no_disk(_: Callable[[str], None]) -> None:
        raise OSError("no space left")

    for broken, reason in (
        (replace(stage.server("store"), prepare=no_disk), "no space left"),
        (replace(stage.server("store"), command=["/no/such/program"]), "could not be started"),
    ):
        watch = stage.supervisor(broken)
        assert await watch.run() is Ended.FAILED
        assert watch.status.failure is not None
        assert watch.status.failure.part == "store"
        assert reason in watch.status.failure.reason


async def test_stopping_during_the_start_leaves_nothing(stage: Stage) -> None:
    watch = stage.supervisor(stage.server("store"), stage.step("slow", "sleep 1000", needs=["store"]))
    run = asyncio.create_task(watch.run())
    await eventually(lambda: watch.status.parts["slow"].pid is not None)
    watch.stop()
    assert await run is Ended.STOPPED
    assert watch.status.phase is Phase.STOPPED
    assert stage.left() == []


async def test_a_part_that_ignores_its_stop_signal_is_killed(stage: Stage) -> None:
    stubborn = stage.server(
        "stubborn", script="touch stubborn.up; trap '' TERM; while :; do sleep 0.05; done"
    )
    async with stage.running(replace(stubborn, stop_within_seconds=0.2)):
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_setup_runs_before_others_see_the_part_as_ready(stage: Stage) -> None:
    async def setup() -> None:
        (stage.folder / "order").open("a").write("roles created\n")

    store = replace(stage.server("store"), setup=setup)
    async with stage.running(store, stage.server("service", needs=["store"])):
        assert stage.diary == ["store starts", "roles created", "service starts"]


async def test_processes_of_a_supervisor_that_was_killed_are_found_and_ended(stage: Stage) -> None:
    watch = stage.supervisor(stage.server("store"))
    run = asyncio.create_task(watch.run())
    await eventually(lambda: watch.status.phase is Phase.READY)
    status = Status.read(stage.status_file)  # all that is known once the supervisor is gone
    assert status is not None
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    left = processes.orphans(Path("/another/instance"), status.parts.values())
    assert status.parts["store"].pid in [process.pid for process in left]
    assert processes.orphans(Path("/another/instance"), ()) == []
    await asyncio.to_thread(processes.end, stage.left())
    assert stage.left() == []
    assert "store stops" in stage.diary


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


def test_needs_are_chosen_with_a_part_and_unknown_names_are_refused(stage: Stage) -> None:
    parts = [stage.server("store"), stage.server("service", needs=["store"]), stage.server("other")]
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


async def test_a_new_supervisor_restarts_what_has_changed_and_only_that(stage: Stage) -> None:
    code = stage.folder / "code"
    code.write_text("one")
    changed = replace(stage.server("changed", needs=["store"]), reads=[code])
    settings = stage.server("settings", needs=["store"])
    untouched = stage.server("untouched", needs=["changed"])
    before = await stage.started_and_left(stage.server("store"), changed, settings, untouched)
    code.write_text("two")
    table = [stage.server("store"), changed, replace(settings, env={"LEVEL": "high"}), untouched]
    async with stage.running(*table, before=before) as watch:
        pids = {name: (before.parts[name].pid, part.pid) for name, part in watch.status.parts.items()}
        assert {name for name, (old, new) in pids.items() if old != new} == {"changed", "settings"}
        assert stage.diary[4:] == ["changed stops", "changed starts", "settings stops", "settings starts"]


async def test_a_new_supervisor_watches_what_it_took_over(stage: Stage) -> None:
    before = await stage.started_and_left(stage.server("store"))
    async with stage.running(stage.server("store"), before=before) as watch:
        store = watch.status.parts["store"]
        killed = store.pid
        assert killed is not None
        assert killed == before.parts["store"].pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: store.state is State.READY and store.pid not in (killed, None))
        assert store.restarts == 1


async def test_a_new_supervisor_starts_what_is_new_and_died_and_stops_what_is_removed(stage: Stage) -> None:
    before = await stage.started_and_left(stage.server("store"), stage.server("old"), stage.server("victim"))
    victim = before.parts["victim"].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    table = [stage.server("store"), stage.server("victim"), stage.server("new", needs=["victim"])]
    async with stage.running(*table, before=before) as watch:
        assert stage.diary[3:] == ["old stops", "victim starts", "new starts"]
        assert watch.status.parts.keys() == {"store", "victim", "new"}


async def test_a_step_runs_again_only_if_it_has_changed(stage: Stage) -> None:
    same = stage.step("same", "echo same >>order")
    other = stage.step("other", "echo other >>order")
    before = await stage.started_and_left(same, other)
    async with stage.running(same, replace(other, env={"TOPIC": "new"}), before=before):
        assert sorted(stage.diary[:2]) == ["other", "same"]
        assert stage.diary[2:] == ["other"]


async def test_a_change_that_does_not_start_is_named_and_the_rest_goes_on(stage: Stage) -> None:
    before = await stage.started_and_left(stage.server("store"), stage.server("service", needs=["store"]))
    broken = stage.server("store", script="[ -e mended ] || { echo no such column; exit 1; }")
    table = [broken, replace(stage.server("service", needs=["store"]), env={"LEVEL": "high"})]
    async with stage.running(*table, before=before) as watch:
        assert watch.status.failure is not None
        assert watch.status.failure.part == "store"
        assert "no such column" in watch.status.failure.log
        assert watch.status.parts["service"].pid == before.parts["service"].pid
        (stage.folder / "mended").touch()
        await eventually(lambda: watch.status.parts["store"].state is State.READY)


async def test_what_was_set_up_is_set_up_again_without_a_restart(stage: Stage) -> None:
    async def setup() -> None:
        (stage.folder / "order").open("a").write("roles created\n")

    store = replace(stage.server("store"), setup=setup)
    before = await stage.started_and_left(store)
    async with stage.running(store, before=before):
        assert stage.diary == ["store starts", "roles created", "roles created"]


async def test_configuration_is_written_before_the_start_and_its_change_is_a_reason_to_restart(
    stage: Stage,
) -> None:
    config = stage.folder / "config"
    before = await stage.started_and_left(
        replace(stage.server("edge", script="cat config >>order"), files=lambda: {config: b"old routes\n"})
    )
    changed = replace(
        stage.server("edge", script="cat config >>order"), files=lambda: {config: b"new routes\n"}
    )
    assert before.parts["edge"].fingerprint != fingerprint.of(changed)
    async with stage.running(changed, before=before) as watch:
        assert stage.diary == ["edge starts", "old routes", "edge stops", "edge starts", "new routes"]
        assert watch.status.parts["edge"].fingerprint == fingerprint.of(changed)
