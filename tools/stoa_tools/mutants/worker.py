"""Runs tests on mutants, each in a fork of a process that has imported all that does not stand on the module.

So a mutant costs little more than its tests. The fork imports the mutated module from the changed source, and
everything that stands on it as usual: what is done at import, a table or a default, is mutated like the rest.

`python -m stoa_tools.mutants.worker` takes a task per line of its input, as JSON, and answers with a line.
This module imports nothing of ours.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import hypothesis
import pytest

_MEMORY = 4 * 2**30  # bytes that a mutant's tests may take


@dataclass(frozen=True)
class Task:
    """Some tests to run: those `chosen` by their ids, or all, of some files and folders.

    `source` stands in the place of the module's own, if there is a module. The tests have `limit` seconds, in
    which those don't count that other processes kept them waiting for a processor.
    """

    folders: Sequence[str]
    limit: float
    module: str = ""
    path: str = ""
    source: str = ""
    chosen: Sequence[str] = ()
    watched: Mapping[str, str] = field(default_factory=dict)  # modules by their files
    report: str = ""  # where to write which tests call what of the watched modules
    output: str = os.devnull


@dataclass
class Calls:
    """What tests were seen to do."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By test, in the order in which they ran."""
    callers: dict[str, list[str]] = field(default_factory=dict)
    """By function (`stoa_order.model:Order.cancel`): the tests that call it, "" for their collection."""
    libraries: list[str] = field(default_factory=list)
    """Modules that are not of ours, in the order of their import."""
    ours: list[str] = field(default_factory=list)
    """Those that are."""
    failed: list[str] = field(default_factory=list)
    """Tests that fail as they are, so that they say nothing about a mutant."""


def main() -> None:
    """Take what is asked, a line at a time, until the input ends.

    A list of modules is imported. A module's name, and a list, begin a fork that imports those of the list
    which do not stand on that module, and goes on in the place of this process until it is asked to end.
    """
    while line := sys.stdin.readline():
        match json.loads(line):
            case {"preload": modules}:
                _preload(modules)
                _answer({})
            case {"about": module, "ours": modules}:
                if (child := os.fork()) == 0:
                    with _without(module):
                        _preload(modules)
                    gc.freeze()
                    _answer({})
                else:
                    os.waitpid(child, 0)
            case {"end": True}:
                _answer({})
                os._exit(0)
            case task:
                _answer(_run_apart(Task(**task)))


def _answer(what: Mapping[str, Any]) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


def _preload(modules: Sequence[str]) -> None:
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let whoever imports a module fail to, and so not be imported either."""
    hidden = _Hidden(module)
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


def _run_apart(task: Task) -> Mapping[str, Any]:
    """Run a task in a fork; returns pytest's exit code, None if it did not end in time, and the seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _run(task)
        finally:
            os._exit(code)
    ended, status = 0, 0
    while not ended and time.monotonic() - began - _kept_waiting(child) < task.limit:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # with whatever its tests have started
    if not ended:
        os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status) if ended else None, "seconds": time.monotonic() - began}


def _kept_waiting(process: int) -> float:
    """How many seconds a process could have run, and others ran instead; 0.0 where the system doesn't tell.

    https://docs.kernel.org/scheduler/sched-stats.html
    """
    try:
        _, waited, _ = Path(f"/proc/{process}/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0
    return int(waited) / 1e9


def _run(task: Task) -> int:
    os.setsid()
    out = os.open(task.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not task.report:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    # The same examples each time, and the first that fails is enough.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    plugins: list[object] = []
    if task.module:
        sys.meta_path.insert(0, _Mutated(task.module, task.path, task.source))
    if task.chosen:
        plugins.append(_Chosen(task.chosen))
    watch = _Watch(task.watched) if task.report else None
    if watch:
        plugins.append(watch)
    files = [test.partition("::")[0] for test in task.chosen]
    code = pytest.main(
        [
            *("-q", "-p", "no:cacheprovider", "-m", "not stack and not slow"),
            "--timeout=0",  # the limit of the task is fair to tests on a busy machine
            *([] if watch else ["-x"]),
            *(dict.fromkeys(files) if files else task.folders),
        ],
        plugins,
    )
    if watch:
        Path(task.report).write_text(json.dumps(asdict(watch.calls())))
    return int(code)


class _Hidden(MetaPathFinder):
    """Finds that there is no such module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> None:
        if name == self._module:
            raise ModuleNotFoundError(name)


class _Mutated(MetaPathFinder):
    """Finds one module, and loads another source of it."""

    def __init__(self, module: str, path: str, source: str) -> None:
        self._module, self._path, self._source = module, path, source

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        loader = _Loader(name, self._path, self._source)
        return spec_from_file_location(name, self._path, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._source, self.path, "exec", dont_inherit=True)
        return code


class _Chosen:
    """A pytest plugin that runs the tests which were chosen, in that order of their files."""

    def __init__(self, chosen: Sequence[str]) -> None:
        self._chosen = {test: number for number, test in enumerate(chosen)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what was chosen."""
        items[:] = [item for item in items if item.nodeid in self._chosen]
        items.sort(key=lambda item: self._chosen[item.nodeid])


class _Watch:
    """A pytest plugin that notes which tests call what, and how long they take."""

    def __init__(self, watched: Mapping[str, str]) -> None:
        self._watched = watched
        self._test = ""
        self._seconds: dict[str, float] = {}
        self._called: dict[str, dict[str, None]] = {}
        self._failed: dict[str, None] = {}
        sys.setprofile(self._note)
        threading.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and (module := self._watched.get(code.co_filename)):
            function = code.co_qualname.partition(".<locals>")[0]
            self._called.setdefault(f"{module}:{function}", {})[self._test] = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note what a test does, its fixtures included."""
        self._test, began = item.nodeid, time.monotonic()
        try:
            return (yield)
        finally:
            self._seconds[item.nodeid], self._test = time.monotonic() - began, ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what fails."""
        if report.failed:
            self._failed[report.nodeid] = None

    def calls(self) -> Calls:
        """What was noted."""
        sys.setprofile(None)
        outside = (sys.prefix, sysconfig.get_path("stdlib"))
        libraries, ours = [], []
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is None or name == "__main__":
                continue
            if any(map(Path(file).is_relative_to, outside)):
                libraries.append(name)
            elif "tests" not in Path(file).parts and Path(file).stem != "conftest":
                ours.append(name)
        called = {
            name: [test for test in tests if test not in self._failed] for name, tests in self._called.items()
        }
        return Calls(self._seconds, called, libraries, ours, list(self._failed))


if __name__ == "__main__":
    main()
