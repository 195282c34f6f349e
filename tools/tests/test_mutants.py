"""What `stoa mutants` changes, and that tests which look on are told apart from those that don't."""

import io
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT
from stoa_tools.mutants import command, worker
from stoa_tools.mutants.command import Module, modules
from stoa_tools.mutants.operators import mutants_of


def changes(source: str) -> set[str]:
    """The mutants of a piece of code, as `before → after`."""
    return {f"{mutant.before} → {mutant.after}" for mutant in mutants_of(textwrap.dedent(source))}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("y = a < b", {"a < b → a <= b", "a < b → a >= b"}),
        ("y = a is None", {"a is None → a is not None"}),
        ("y = a and b", {"a and b → (a or b)", "a and b → a", "a and b → b"}),
        ("y = a + b", {"a + b → (a - b)"}),
        ("y = not a", {"not a → a"}),
        ("y = -a", {"-a → a"}),
        ("y = 7", {"7 → 8"}),
        ("y = True", {"True → False"}),
        ("y = 'CART_FULL'", {"'CART_FULL' → 'CART_FULLX'"}),
        ("y = '0.01'", {"'0.01' → '1.01'"}),
        ("y = 'the cart is full'", set()),
        ("y = any(a)", {"any → all"}),
        ("y = ROUND_HALF_UP", {"ROUND_HALF_UP → 'ROUND_HALF_DOWN'"}),
        ("y = f(a, b)", {"f(a, b) → f(b, a)"}),
        ("y = f(a, 'x y')", set()),
        ("y = f(a, a)", set()),
        (
            "y = f(a=b, c=d)",
            {"f(a=b, c=d) → f(a=d, c=b)", "f(a=b, c=d) → f(c=d)", "f(a=b, c=d) → f(a=b)"},
        ),
        ("y = [x for x in a if x]", {"x → not (x)"}),
        ("y = a if b else c", {"b → not (b)"}),
        ("y = zip(a, strict=True)", set()),
        ("y: int | None = None", set()),
        ("Fact = Placed | Cancelled", set()),
        ("_log = get_logger('x')", set()),
    ],
)
def test_each_kind_of_mistake(code: str, expected: set[str]) -> None:
    assert changes(code) == expected


def test_statements_that_do_something_are_left_out_one_at_a_time() -> None:
    found = changes(
        """
        def act(self):
            if self.done:
                return
            self.done = x
            self.count += y
            self.tell()
            _log.info("told")
            raise Broken
        """
    )
    assert found == {
        "self.done → not (self.done)",
        "return → pass",
        "self.done = x → pass",
        "self.count += y → pass",
        "self.count += y → self.count -= y",
        "self.tell() → pass",
        "raise Broken → pass",
    }


def test_a_result_is_left_out_or_turned_round() -> None:
    assert changes("def f():\n    return x") == {"return x → return None"}
    assert "a or b → not (a or b)" in changes("def f():\n    return a or b")


def test_a_field_is_taken_for_its_neighbour_of_the_same_type_and_a_member_for_the_next() -> None:
    found = changes(
        """
        class Status(StrEnum):
            OPEN = "is open"
            SHUT = "is shut"

        @dataclass(frozen=True)
        class Place:
            city: str
            size: int
            region: str

        def f(place):
            g(place.city, Status.OPEN)
        """
    )
    assert found == {
        "place.city → place.region",
        "Status.OPEN → Status.SHUT",
        "g(place.city, Status.OPEN) → pass",
        "g(place.city, Status.OPEN) → g(Status.OPEN, place.city)",
    }


def test_a_mutant_knows_its_place_and_changes_nothing_else() -> None:
    source = 'class A:\n    def f(self):\n        return "ä", a < b  # why\n'
    (mutant,) = [found for found in mutants_of(source) if found.after == "a <= b"]
    assert mutant.applied(source) == source.replace("a < b", "a <= b")
    assert (mutant.function, mutant.line, mutant.number) == ("A.f", 'return "ä", a < b  # why', 3)


def test_what_runs_at_import_belongs_to_no_function() -> None:
    source = "TABLE = [lambda order: order.total > 7]\ndef f(x=7):\n    pass\n"
    assert {mutant.function for mutant in mutants_of(source)} == {""}


def test_every_module_that_decides_is_mutated() -> None:
    names = {module.name for module in modules()}
    assert {
        "stoa_contracts.money",
        "stoa_contracts.roles",
        "stoa_chassis.auth",
        "stoa_order.saga",
        "stoa_order.returns",
        "stoa_shipping.tariff",
        "stoa_notification.occasions",
        "stoa_catalog.read_model",
    } <= names
    models = CHECKOUT.glob("services/*/stoa_*/model.py")
    assert {f"{path.parent.name}.model" for path in models} <= names


def test_every_mutant_that_is_listed_as_equivalent_is_one_of_today() -> None:
    by_name = {module.name: module for module in modules()}
    for known in command.equivalents():
        module = by_name[known.module]
        assert any(known.is_of(mutant, module) for mutant in module.mutants), f"no such mutant: {known}"
        assert known.why


# ------------------------------------------------------------------------------------------- with their tests

_MODEL = """
LIMIT = 7


def fits(wanted: int, there: int) -> bool:
    return wanted <= there


def halvings(size: int) -> int:
    count = 0
    while size > 1:
        size //= 2
        count += 1
    return count
"""
_LOOKS_ON = """
from model import LIMIT, fits, halvings

def test_the_limit():
    assert LIMIT == 7

def test_as_many_as_there_are_fit():
    assert fits(2, 2)
    assert not fits(3, 2)

def test_it_ends():
    assert halvings(4) == 2
"""
_LOOKS_AWAY = """
from model import fits

def test_something_fits():
    assert fits(1, 2)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], str]:
    """Run mutants of a little model with these tests; what was printed."""

    def mutate(tests: str, least: float) -> str:
        (tmp_path / "model.py").write_text(_MODEL)
        folder = tmp_path / "tests"
        folder.mkdir()
        (folder / "test_model.py").write_text(tests)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  stack\n  slow\n")
        little = Module("model", tmp_path / "model.py", ("tests",))
        monkeypatch.setattr(command, "CHECKOUT", tmp_path)
        monkeypatch.setattr(command, "_GRACE", 2.0)
        monkeypatch.setattr(command, "modules", lambda wanted: [little])
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        output = io.StringIO()
        console = Console(file=output, width=200)
        try:
            command.mutants(console, count=100, seed=1, wanted=(), least=least, jobs=1)
        except typer.Exit:
            output.write("failed")
        return output.getvalue()

    return mutate


def outcomes(printed: str) -> Sequence[str]:
    (total,) = [line.split() for line in printed.splitlines() if line.strip().startswith("in all")]
    return total[2:]


def test_mutants_that_no_test_notices_are_printed_and_fail_the_run(
    run: Callable[[str, float], str],
) -> None:
    printed = run(_LOOKS_AWAY, 100)
    assert "survived model.py:6 fits" in printed
    assert "+    return wanted < there" in printed
    assert printed.endswith("failed")


def test_mutants_that_the_tests_notice_are_killed(run: Callable[[str, float], str]) -> None:
    printed = run(_LOOKS_ON, 90)
    killed, timed_out, survived, equivalent = map(int, outcomes(printed)[:4])
    assert (survived, equivalent) == (0, 0), printed
    assert not printed.endswith("failed")
    assert killed >= 2
    assert timed_out >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be put on one processor")
def test_the_time_in_which_others_have_the_processor_is_not_the_tests() -> None:
    one = {min(os.sched_getaffinity(0))}
    busy = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", busy, str(*one)]) for _ in range(2)]
    try:
        began = time.monotonic()
        while min(worker._kept_waiting(rival.pid) for rival in rivals) < 0.1:
            assert time.monotonic() - began < 60, "neither has waited for the other"
            time.sleep(0.01)
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_mutants_of_the_shop_are_noticed() -> None:
    """The whole is `make mutants`; this much shows that it works, and that no module has lost its tests."""
    output = io.StringIO()
    console = Console(file=output, width=200)
    try:
        command.mutants(console, count=30, seed=1, wanted=(), least=70, jobs=2)
    except typer.Exit:
        pytest.fail(output.getvalue())
