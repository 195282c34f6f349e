"""Run while an image is built, by the base's Python: makes what its last stage copies.

    build.py python FOLDER     a root file system with Python in it and nothing else
    build.py packages FOLDER   packages of others below FOLDER: compiled, small
    build.py own FOLDER        our packages below FOLDER: compiled, with their sources for stack traces

The root file system has no shell, no package manager, no other program: the interpreter and its library, the
C libraries that it and wheels load, the certificate authorities, and the user. Of each Debian package that
something is from, it keeps the description where scanners of images look for it.
"""

import compileall
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

USER, UID = "stoa", 10001
# Of Python's library no service imports these: terminals, desktops, installers, databases in files, tests.
WITHOUT = {
    "__pycache__", "__phello__", "curses", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "sqlite3", "test", "tests", "tkinter", "turtledemo", "venv",
}  # fmt: skip
WITHOUT_EXTENSIONS = ("_curses", "_dbm", "_gdbm", "_sqlite3", "_test", "_tkinter", "_xx", "readline", "xx")
# What wheels for manylinux expect of the system, and what the C library loads by name to resolve hosts.
LIBRARIES = (
    "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libpthread.so.0",
    "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1",
)  # fmt: skip
FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/os-release", "/etc/ld.so.conf")

# Nothing at runtime reads these: sources of what is compiled, types, tests.
UNUSED = ("**/*.c", "**/*.h", "**/*.pxd", "**/*.pxi", "**/*.pyi", "**/*.pyx", "**/tests", "**/test")
# Of data for all the world, what we ask for: languages that mails are written in, services of AWS.
DATA = {
    "**/babel/locale-data/*": ("root.dat", "en*.dat", "de*.dat"),
    "**/botocore/data/*/": ("sesv2", "sns"),
}


def python(root: Path) -> None:
    """Make a root file system."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    files = [*map(Path, FILES), *Path("/etc/ld.so.conf.d").glob("*.conf")]
    wanted = {interpreter, *python_library(library), *system_libraries(), *files}
    loaded = {library for file in wanted for library in linked(file)}
    for file in wanted | loaded:
        copy(file, root)
    for name in ("lib", "lib64"):  # links in Debian; the loader of programs is asked for as /lib64/…
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(f"/{name}"))
    if not (found := root / "usr/bin/python3").exists():
        found.parent.mkdir(parents=True, exist_ok=True)
        found.symlink_to(interpreter)
    (root / "etc/passwd").write_text(f"root:x:0:0::/:/none\n{USER}:x:{UID}:{UID}::/:/none\n")
    (root / "etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    keep_descriptions(wanted | loaded, root)
    (root / "etc/PYTHON_VERSION").write_text(platform.python_version())  # what no package may tell
    subprocess.run(["ldconfig", "-X", "-r", root], check=True)
    compile_all(root, keep_sources=False)


def packages(root: Path) -> None:
    """Compile packages of others, and leave out what nothing reads."""
    for pattern in UNUSED:
        remove(root.glob(pattern))
    for pattern, used in DATA.items():
        remove(path for path in root.glob(pattern) if not any(path.match(name) for name in used))
    for file in root.rglob("*.so*"):
        strip(file)
    compile_all(root, keep_sources=False)


def own(root: Path) -> None:
    """Compile our packages."""
    compile_all(root, keep_sources=True)


def compile_all(root: Path, *, keep_sources: bool) -> None:
    """Compile what is below the root, as what it will be there; nobody may write there, so none is stale."""
    compileall.compile_dir(
        root,
        maxlevels=99,
        stripdir=str(root),
        prependdir="/",
        quiet=2,
        legacy=not keep_sources,  # beside the sources, where they are found without them
        workers=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    if not keep_sources:
        remove(path for path in root.rglob("*.py") if path.with_suffix(".pyc").exists())


def strip(file: Path) -> None:
    """Cut off a library what no loader reads: the sections for debuggers, which follow the segments."""
    content = file.read_bytes()
    if content[:5] != b"\x7fELF\x02" or file.is_symlink():
        return
    (segments,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    end = segments + size * count
    for number in range(count):
        offset, length = struct.unpack_from("<8xQ16xQ", content, segments + size * number)
        end = max(end, offset + length)
    header = bytearray(content[:end])
    struct.pack_into("<Q", header, 40, 0)  # the sections' table is gone: where it was, and
    struct.pack_into("<HH", header, 60, 0, 0)  # how many there are
    file.write_bytes(header)


def remove(paths: Iterable[Path]) -> None:
    """Delete files and folders."""
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def python_library(library: Path) -> Iterator[Path]:
    """The files of Python's own library that are wanted."""
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in WITHOUT and not name.startswith("config-")]
        for name in names:
            if name.endswith(".py") or (name.endswith(".so") and not name.startswith(WITHOUT_EXTENSIONS)):
                yield Path(folder, name)


def system_libraries() -> Iterator[Path]:
    """Where those are that wheels expect."""
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^\s*(\S+) \(.*\) => (\S+)$", listed, re.MULTILINE))
    return (Path(found[name]) for name in LIBRARIES if name in found)


def linked(file: Path) -> Iterable[Path]:
    """The shared libraries that a program or library is linked with, and the program that loads them."""
    if file.suffix == ".py":
        return ()
    listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
    return map(Path, re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed, re.MULTILINE))


def copy(file: Path, root: Path) -> None:
    """Copy what a path leads to, so that it leads there below the root as well."""
    place = below(root, file)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)
    shutil.copymode(file, place)


def below(root: Path, file: Path) -> Path:
    """The place of a file below the root; of its folder's names none is a link there."""
    return root / file.parent.resolve().relative_to("/") / file.name


def keep_descriptions(files: Collection[Path], root: Path) -> None:
    """Keep what Debian says of the packages that files are from, with their licences."""
    places = {below(Path("/"), file) for file in files} | {file.resolve() for file in files}
    kept = root / "var/lib/dpkg/status.d"
    kept.mkdir(parents=True)
    for listed in Path("/var/lib/dpkg/info").glob("*.list"):
        if any(below(Path("/"), Path(line)) in places for line in listed.read_text().splitlines()):
            package = listed.stem.partition(":")[0]
            described = subprocess.run(["dpkg-query", "--status", package], capture_output=True, check=True)
            (kept / package).write_bytes(described.stdout)
            licence = Path("/usr/share/doc", package, "copyright")
            if licence.exists():
                copy(licence, root)


if __name__ == "__main__":
    {"python": python, "packages": packages, "own": own}[sys.argv[1]](Path(sys.argv[2]))
