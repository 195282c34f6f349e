"""Reads from a broker all that operators' commands read, for ever: a program for `test_outages.py`.

`python reading_kafka.py <host:port> kept` keeps its clients through outages, as `stoa top` does; `opened`
opens new ones for each look, as one command after another does.
"""

import sys
import time
from contextlib import ExitStack, closing

from stoa_ops.dead_letters import DeadLetters
from stoa_ops.groups import progress, standing
from stoa_ops.services import consuming
from stoa_ops.topics import OffsetReader, TopicReader

_PAUSE = 0.02  # seconds
_LOOKS = {"kept": 1_000_000, "opened": 1}


def main(bootstrap: str, looks: int) -> None:
    """Look again and again, `looks` times with the same clients."""
    groups = [service.name for service in consuming()]
    while True:
        with ExitStack() as clients:
            offsets = clients.enter_context(closing(OffsetReader(bootstrap)))
            topics = clients.enter_context(closing(TopicReader(bootstrap)))
            letters = DeadLetters()
            for _ in range(looks):
                try:
                    before = progress(offsets)
                    standing(offsets, before, progress(offsets))
                    offsets.members(groups)
                    list(topics.read(topics.topics(), newest=10))
                    letters.read(topics)
                except ConnectionError:
                    continue
                time.sleep(_PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], _LOOKS[sys.argv[2]])
