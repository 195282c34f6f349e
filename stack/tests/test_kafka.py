from pathlib import Path

from stoa_stack.fetch import Cache
from stoa_stack.instance import Instance
from stoa_stack.servers import kafka

_INDEXED_EVERY = 4096  # bytes of a segment; the broker's default
_LARGEST_ENTRY = 12  # bytes, of an index by time
_MEGABYTE = 2**20


def _properties(tmp_path: Path) -> dict[str, str]:
    part = kafka.part(Instance(tmp_path), Cache(tmp_path))
    assert part.files is not None
    (text,) = (content for path, content in part.files().items() if path.name == "server.properties")
    return dict(line.split("=", 1) for line in text.decode().splitlines())


def test_a_broker_that_was_killed_has_little_to_read_again_and_to_make_anew(tmp_path: Path) -> None:
    properties = _properties(tmp_path)
    assert int(properties["log.segment.bytes"]) <= 64 * _MEGABYTE
    assert int(properties["log.index.size.max.bytes"]) <= _MEGABYTE


def test_a_segment_is_full_before_its_indexes_are(tmp_path: Path) -> None:
    properties = _properties(tmp_path)
    entries = int(properties["log.segment.bytes"]) / _INDEXED_EVERY
    assert entries * _LARGEST_ENTRY < int(properties["log.index.size.max.bytes"])
