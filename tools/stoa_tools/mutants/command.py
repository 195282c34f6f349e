"""`stoa mutants`: changes what the shop decides with, one mistake at a time, and runs the tests on each.

A mutant that some test fails on is killed; one that none notices survives, and names a test that is missing.
Only tests that need no server count: what a model decides is for them to hold. A mutant meets first the tests
that call the function which was changed, then, if none of those fails, all that call its module. What is no
function's (a status, a limit, the reason of an error) is read without any call: there all others follow.

Mutants that do the same as the original are listed with the reason in `equivalent.toml`, and not counted.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from difflib import unified_diff
from enum import StrEnum
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

import typer
from rich.console import Console
from rich.table import Table

from stoa_stack.instance import CHECKOUT
from stoa_tools.mutants.operators import Mutant, mutants_of
from stoa_tools.mutants.worker import Calls, Task

# What is mutated: where the shop decides, what an order costs, who may call, what a client is answered. What
# a store is asked (SQL, queries of OpenSearch) is not: only the store can tell.
MUTATED = (
    "libs/contracts/stoa_contracts/descriptors.py",
    "libs/contracts/stoa_contracts/money.py",
    "libs/contracts/stoa_contracts/roles.py",
    "libs/chassis/stoa_chassis/auth.py",
    "libs/chassis/stoa_chassis/breaker.py",
    "libs/chassis/stoa_chassis/due.py",
    "libs/chassis/stoa_chassis/emails.py",
    "libs/chassis/stoa_chassis/errors.py",
    "libs/chassis/stoa_chassis/paging.py",
    "libs/chassis/stoa_chassis/postal.py",
    "libs/chassis/stoa_chassis/status.py",
    "libs/chassis/stoa_chassis/texts.py",
    "libs/chassis/stoa_chassis/tokens.py",
    "libs/chassis/stoa_chassis/validation.py",
    "services/*/stoa_*/model.py",
    "services/*/stoa_*/links.py",
    "services/*/stoa_*/occasions.py",
    "services/*/stoa_*/read_model.py",
    "services/*/stoa_*/returns.py",
    "services/*/stoa_*/saga.py",
    "services/*/stoa_*/tariff.py",
    "services/*/stoa_*/tokens.py",
)
_EQUIVALENT = Path(__file__).with_name("equivalent.toml")
# The tests of a mutant may take so many times what they take without it, and so many seconds more.
_PATIENCE, _GRACE = 10, 30.0


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"


@dataclass(frozen=True)
class Module:
    """A module that is mutated, and where the tests are that hold it: those of its part."""

    name: str  # stoa_order.saga
    path: Path
    tests: tuple[str, ...]

    @property
    def source(self) -> str:
        """Its text."""
        return self.path.read_text()

    @property
    def mutants(self) -> Sequence[Mutant]:
        """All of its mutants."""
        return _mutants(self.source)


@cache
def _mutants(source: str) -> Sequence[Mutant]:
    return mutants_of(source)


@dataclass(frozen=True)
class Equivalent:
    """A mutant that does what the original does. It is known by the text of its line, not by its number."""

    module: str
    line: str
    before: str
    after: str
    why: str

    def is_of(self, mutant: Mutant, module: Module) -> bool:
        """Tell whether this is the mutant."""
        known = (self.module, self.line, self.before, self.after)
        return known == (module.name, mutant.line, mutant.before, mutant.after)


def modules(wanted: Sequence[str] = (), checkout: Path = CHECKOUT) -> Sequence[Module]:
    """The modules that are mutated, or those of them whose names match a pattern (`stoa_order.*`)."""
    paths = sorted(path for pattern in MUTATED for path in checkout.glob(pattern))
    found = [_module(path, checkout) for path in paths]
    return [module for module in found if not wanted or any(fnmatch(module.name, w) for w in wanted)]


def _module(path: Path, checkout: Path) -> Module:
    part = path.parents[1].relative_to(checkout)
    # The two libraries are tested together: the chassis reads what the contracts declare.
    where = checkout.glob("libs/*/tests") if part.parts[0] == "libs" else [checkout / part / "tests"]
    tests = tuple(str(folder.relative_to(checkout)) for folder in sorted(where))
    return Module(f"{path.parent.name}.{path.stem}", path, tests)


def equivalents() -> Sequence[Equivalent]:
    """The mutants that are known to change nothing."""
    known = tomllib.loads(_EQUIVALENT.read_text())
    return [Equivalent(**entry) for entry in known.get("mutant", [])]


def mutants(
    console: Console, *, count: int, seed: int, wanted: Sequence[str], least: float, jobs: int
) -> None:
    """Run the tests on `count` mutants that `seed` draws, and print what became of them.

    Tests that fail as they are have no say. Raises typer.Exit if less than `least` per cent were killed, or
    the tests can't be run.
    """
    began = time.monotonic()
    chosen = modules(wanted)
    if not chosen:
        console.print(
            f"No module is called {', '.join(wanted)}. Modules: {', '.join(m.name for m in modules())}"
        )
        raise typer.Exit(2)
    fates: dict[tuple[Module, Mutant], Fate] = {}
    drawn, equal = [], equivalents()
    for module, mutant in _drawn(chosen, count, seed):
        if any(same.is_of(mutant, module) for same in equal):
            fates[module, mutant] = Fate.EQUIVALENT
        else:
            drawn.append((module, mutant))
    with _workers(jobs) as workers:
        calls = _watch(console, workers, chosen)
        for module in chosen:
            own = sorted((mutant for of, mutant in drawn if of is module), key=lambda mutant: mutant.start)
            found = _fates(workers, calls[module.tests], module, own)
            for (_, mutant), fate in found.items():
                if fate is Fate.SURVIVED:
                    _print_diff(console, module, mutant)
            fates |= found
            killed = _score(fate for (of, _), fate in fates.items() if of is module)
            console.print(f"{module.name}: {len(own)} mutants, {killed:.0f} % killed")
    _report(console, fates, time.monotonic() - began)
    score = _score(fates.values())
    if score < least:
        console.print(f"[red]{score:.1f} % were killed, {least:g} % must be[/]")
        raise typer.Exit(1)


def _drawn(chosen: Sequence[Module], count: int, seed: int) -> Sequence[tuple[Module, Mutant]]:
    every = [(module, mutant) for module in chosen for mutant in module.mutants]
    return random.Random(seed).sample(every, min(count, len(every)))


# ---------------------------------------------------------------------------------------------- running tests


class _Worker:
    """A process that runs tests; see `worker.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stoa_tools.mutants.worker"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def preload(self, libraries: Sequence[str]) -> None:
        """Import what no mutant changes."""
        self._ask({"preload": libraries})

    @contextmanager
    def about(self, module: Module, ours: Sequence[str]) -> Iterator[None]:
        """Turn to the mutants of a module: import what does not stand on it, until the block ends."""
        self._ask({"about": module.name, "ours": ours})
        try:
            yield
        finally:
            self._ask({"end": True})

    def run(self, task: Task) -> int | None:
        """Run a task; returns pytest's exit code, None if it took too long."""
        code: int | None = self._ask(asdict(task))["code"]
        return code

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, what: Mapping[str, object]) -> dict[str, int | None]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        answer: dict[str, int | None] = json.loads(self._process.stdout.readline())
        return answer


class _Workers:
    """Some of them, each of which does one thing at a time."""

    def __init__(self, count: int) -> None:
        self.all = [_Worker() for _ in range(count)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self.all:
            self._free.put(worker)

    def run(self, task: Task) -> int | None:
        """Run a task on one that is free."""
        worker = self._free.get()
        try:
            return worker.run(task)
        finally:
            self._free.put(worker)


@contextmanager
def _workers(count: int) -> Iterator[_Workers]:
    workers = _Workers(count)
    try:
        yield workers
    finally:
        for worker in workers.all:
            worker.close()


def _watch(console: Console, workers: _Workers, chosen: Sequence[Module]) -> Mapping[tuple[str, ...], Calls]:
    """Run the tests as they are, once, and see which of them call what."""
    parts = sorted({module.tests for module in chosen})
    watched = {str(module.path): module.name for module in chosen}
    calls = {}
    with TemporaryDirectory() as folder, ThreadPoolExecutor(len(workers.all)) as pool:

        def watch(number: int, tests: tuple[str, ...]) -> Calls:
            report, output = Path(folder, f"{number}.json"), Path(folder, f"{number}.log")
            task = Task(tests, 600, watched=watched, report=str(report), output=str(output))
            if workers.run(task) not in (0, 1):
                console.print(output.read_text(), markup=False)
                console.print("[red]The tests can't be run as they are.[/]")
                raise typer.Exit(1)
            return Calls(**json.loads(report.read_text()))

        for tests, seen in zip(parts, pool.map(watch, range(len(parts)), parts), strict=True):
            calls[tests] = seen
            for test in seen.failed:
                console.print(f"[yellow]fails as it is, and is not asked:[/] {test}", soft_wrap=True)
    libraries = list(dict.fromkeys(name for seen in calls.values() for name in seen.libraries))
    for worker in workers.all:
        worker.preload(libraries)
    return calls


def _fates(
    workers: _Workers, seen: Calls, module: Module, mutants: Sequence[Mutant]
) -> Mapping[tuple[Module, Mutant], Fate]:
    """What becomes of mutants of one module."""
    if not mutants:
        return {}
    with ExitStack() as block, ThreadPoolExecutor(len(workers.all)) as pool:
        for worker in workers.all:
            block.enter_context(worker.about(module, seen.ours))
        found = pool.map(lambda mutant: _fate(workers, seen, module, mutant), mutants)
        return {(module, mutant): fate for mutant, fate in zip(mutants, found, strict=True)}


def _fate(workers: _Workers, seen: Calls, module: Module, mutant: Mutant) -> Fate:
    for chosen in _rounds(seen, module, mutant):
        seconds = sum(seen.seconds[test] for test in chosen)
        code = workers.run(
            Task(
                module.tests,
                seconds * _PATIENCE + _GRACE,
                module.name,
                str(module.path),
                mutant.applied(module.source),
                chosen,
            )
        )
        if code is None:
            return Fate.TIMED_OUT
        if code not in (0, 5):  # 5: the names of the tests come from what was changed
            return Fate.KILLED
    return Fate.SURVIVED


def _rounds(seen: Calls, module: Module, mutant: Mutant) -> Iterator[Sequence[str]]:
    """The tests that call the function that was changed, the quick ones first; then those of the module.

    Who reads what is no function's is not known: that is put to the others as well.
    """
    near = set(seen.callers.get(f"{module.name}:{mutant.function}", ()))
    far = {
        test
        for function, tests in seen.callers.items()
        if function.startswith(f"{module.name}:")
        for test in tests
    }
    others = set() if mutant.function else set(seen.seconds) - far
    for tests in (near - {""}, far - near - {""}, others):
        if tests:
            yield _quick_first(tests, seen)


def _quick_first(tests: Iterable[str], seen: Calls) -> Sequence[str]:
    """Tests in the order of what a test of their file takes: what one file sets up, it sets up once."""
    chosen = [test for test in seen.seconds if test in set(tests)]
    files: dict[str, list[float]] = {}
    for test in chosen:
        files.setdefault(test.partition("::")[0], []).append(seen.seconds[test])
    return sorted(chosen, key=lambda test: (mean := files[test.partition("::")[0]]) and sum(mean) / len(mean))


# --------------------------------------------------------------------------------------------------- report


def _score(fates: Iterable[Fate]) -> float:
    """How many of those that could be were killed, in per cent; a test that does not end has noticed.

    It is 100 where there was none.
    """
    counts = Counter(fates)
    killed = counts[Fate.KILLED] + counts[Fate.TIMED_OUT]
    could_be = killed + counts[Fate.SURVIVED]
    return 100 * killed / could_be if could_be else 100.0


def _report(console: Console, fates: Mapping[tuple[Module, Mutant], Fate], seconds: float) -> None:
    table = Table("module", *(Fate), "killed of all", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    by_module: dict[str, list[Fate]] = {}
    for (module, _), fate in fates.items():
        by_module.setdefault(module.name, []).append(fate)
    for name, own in [*sorted(by_module.items()), ("in all", list(fates.values()))]:
        counts = Counter(own)
        table.add_row(name, *(str(counts[fate]) for fate in Fate), f"{_score(own):.0f} %")
    console.print(table)
    console.print(f"{len(fates)} mutants in {seconds / 60:.1f} min")


def _print_diff(console: Console, module: Module, mutant: Mutant) -> None:
    before, after = module.source.splitlines(), mutant.applied(module.source).splitlines()
    where = os.path.relpath(module.path, CHECKOUT)
    console.print(f"[yellow]survived[/] {where}:{mutant.number} {mutant.function}")
    for line in list(unified_diff(before, after, n=1, lineterm=""))[3:]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
