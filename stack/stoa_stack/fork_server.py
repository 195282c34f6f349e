"""A process that has loaded the libraries of all services, and forks to become one: a start without imports.

A service that starts alone spends two seconds of a processor on importing Python, before its first line of
its own runs, and fifteen that start together wait for each other. So one process imports what they have in
common (the chassis and all below it), opens nothing, starts no thread, and forks for each start. What it has
loaded is in memory once, however many share it (copy-on-write).

The pattern is the zygote of Android, the fork server of `multiprocessing`, the preloaded app of gunicorn.
Python's own fork server would be the parent of what it forks and die with whoever asks it; here the new
process is a child of the supervisor, which adopts it (`adopt_orphans`), as if it had been executed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stoa_stack.instance import Instance
from stoa_stack.part import Part

NAME = "fork-server"
# The path of a socket may have 107 characters, that of a folder any number: it is reached through the folder.
_SOCKET = "socket"
_ANSWER_WITHIN = 2.0  # seconds; a start without it takes no longer
_LONGEST_REQUEST = 1 << 20  # bytes; an environment is some ten thousand
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36  # <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


def part(at: Instance) -> Part:
    """The fork server, which listens in the folder that it works in."""
    folder = at.folder("fork-server")

    async def ready() -> None:
        check(folder)

    return Part(
        name=NAME,
        command=[sys.executable, "-m", __name__],
        ready=ready,
        env={"PYTHONUNBUFFERED": "1"},
        packages=["stoa_chassis"],
        reads=[Path(__file__)],
        cwd=folder,
    )


@dataclass(frozen=True, slots=True)
class Program:
    """What a fork becomes: `python -m <module>` in an environment; what it says is added to a log."""

    module: str
    environ: Mapping[str, str]
    log: str
    folder: str | None = None


def adopt_orphans(adopt: bool = True) -> None:
    """Be the parent of what descendants of this process leave behind, or be so no more. Raises OSError."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "a process that adopts orphans (Linux 3.4) is needed")


def fork(folder: Path, program: Program) -> int:
    """Let the fork server that listens in a folder start a program; return the id of our new child.

    Raises OSError if it is not there or does not answer.
    """
    with _connected(folder) as connection:
        connection.sendall(json.dumps(asdict(program)).encode() + b"\n")
        answer = connection.recv(32)
        if not answer:
            raise ConnectionError("the fork server gave no answer")
        connection.sendall(b"\n")  # what it forked goes on only if somebody still waits for it
        return int(answer)


def check(folder: Path) -> None:
    """Raise OSError unless a fork server listens in the folder, which it does once it has loaded all."""
    with _connected(folder):
        pass


@contextmanager
def _connected(folder: Path) -> Iterator[socket.socket]:
    with _reached(folder) as near, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_WITHIN)
        connection.connect(near)
        yield connection


@contextmanager
def _reached(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


def serve(folder: Path) -> Program:
    """Fork a process for each request, for ever. Returns in these alone, with what each is to become."""
    _load()
    with _listening(folder) as listener:
        while True:
            connection, _ = listener.accept()
            # Whoever asked may have gone, or only have looked whether somebody listens.
            with connection, suppress(OSError, ValueError, TypeError):
                connection.settimeout(_ANSWER_WITHIN)
                program = Program(**json.loads(_received(connection)))
                child = _fork_orphan()
                if child == 0:
                    if not _is_awaited(connection):
                        os._exit(0)
                    return program
                connection.sendall(str(child).encode())


def _load() -> None:
    import stoa_chassis

    chassis = [f"stoa_chassis.{module.name}" for module in pkgutil.iter_modules(stoa_chassis.__path__)]
    for name in ("stoa_events", *chassis):
        if not name.startswith("stoa_chassis.testing"):
            importlib.import_module(name)
    # What is loaded stays: no collection of a fork looks at it, and thereby copies its pages.
    gc.collect()
    gc.freeze()
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"{threads} threads run after the imports: a fork would have one, and their locks")


@contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    with _reached(folder) as near, socket.socket(socket.AF_UNIX) as listener:
        (folder / _SOCKET).unlink(missing_ok=True)
        listener.bind(near)
        listener.listen(64)
        yield listener


def _received(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n") and len(received) <= _LONGEST_REQUEST:
        if not (more := connection.recv(1 << 16)):
            break
        received += more
    return received


def _is_awaited(connection: socket.socket) -> bool:
    """Whether the one who asked for this process has seen its id, and not started another one meanwhile."""
    try:
        return bool(connection.recv(1))
    except OSError:
        return False


def _fork_orphan() -> int:
    """Fork a process that leads a session of its own and that whoever adopts our orphans has as its child.

    Returns its id, and 0 in it. Raises OSError if there can be no more processes.
    """
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        is_done = False
        try:
            if os.fork() == 0:
                os.setsid()
                os.write(writer, str(os.getpid()).encode())
                os.close(reader)
                os.close(writer)
                is_done = True
                return 0
        finally:
            if not is_done:
                os._exit(0)
    os.close(writer)
    try:
        os.waitpid(between, 0)
        said = os.read(reader, 32)
    finally:
        os.close(reader)
    if not said:
        raise OSError("no process could be forked")
    return int(said)


def _become(program: Program) -> None:
    """Run a program in this process, as if the interpreter had been started with it."""
    _libc.prctl(_PR_SET_NAME, program.module.encode(), 0, 0, 0)  # for `top`, cut off after 15 characters
    os.environ.clear()
    os.environ.update(program.environ)
    if program.folder is not None:
        os.chdir(program.folder)
    log = os.open(program.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    for output in (sys.stdout, sys.stderr):
        os.dup2(log, output.fileno())
    os.close(log)
    runpy.run_module(program.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(serve(Path.cwd()))
