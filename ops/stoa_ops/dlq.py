"""`stoa dlq`: look at dead letters, send them back to the group that could not process them, or drop them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stoa_chassis.kafka import PublishFailed, original_headers
from stoa_ops import groups
from stoa_ops.dead_letters import DeadLetters, Fate, Letter, decide
from stoa_ops.events import EventReader, Unreadable
from stoa_ops.settings import OperatorSettings
from stoa_ops.texts import unreadable
from stoa_ops.topics import TopicReader

_REASON_CHARACTERS = 90


def show_list(
    settings: OperatorSettings, console: Console, group: str, *, decided: bool, as_json: bool
) -> int:
    """List what is open (or what was decided), oldest first in each partition; 2 if Kafka can't be read.

    For people it also says which groups stand still: nothing of theirs is parked until they go on.
    """
    try:
        letters = [each for each in _read(settings, group) if (each.fate is not Fate.OPEN) == decided]
        still = () if decided or as_json else groups.look(settings.kafka_bootstrap)
    except ConnectionError as error:
        return unreadable(console, error)
    if as_json:
        sys.stdout.write(orjson.dumps([_summary(each) for each in letters]).decode() + "\n")
        return 0
    for standstill in still:
        if group in ("", standstill.group):
            console.print(f"[red]{escape(standstill.group)}: {escape(standstill.problem)}[/]")
            console.print(f"  {escape(standstill.cure)}")
    if not letters:
        console.print("No dead letter was decided on." if decided else "No dead letter is open.")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "parked", "from", "key", "reason", *(("decision",) if decided else ())):
        table.add_column(heading, no_wrap=heading != "reason")
    for each in letters:
        reason = f"{each.origin.error.rsplit('.', 1)[-1]}: {each.origin.reason}" if each.origin else "?"
        row = [
            each.letter_id,
            _time(each.at),
            f"{each.origin.topic}/{each.origin.partition}/{each.origin.offset}" if each.origin else "?",
            _text(each.key),
            reason.partition("\n")[0][:_REASON_CHARACTERS],
        ]
        table.add_row(*map(escape, [*row, f"{each.fate} {each.decided}"] if decided else row))
    console.print(table)
    return 0


def show(settings: OperatorSettings, console: Console, letter_id: str) -> int:
    """Print all of a letter: where it comes from, why it was parked, its headers and its event as JSON."""
    try:
        letter = next((each for each in _read(settings) if each.letter_id == letter_id), None)
        event = _event(settings, letter) if letter else ""
    except ConnectionError as error:
        return unreadable(console, error)
    if letter is None:
        return _unknown(console, [letter_id])
    lines = [f"{letter.letter_id}: {letter.fate} {letter.decided}".rstrip()]
    if origin := letter.origin:
        lines += [
            f"from      {origin.topic}/{origin.partition}/{origin.offset}",
            f"parked    {origin.time.isoformat(timespec='seconds')} by {letter.group}",
            f"reason    {origin.error}: {origin.reason}",
        ]
    lines += [f"key       {_text(letter.key)}"]
    lines += [f"header    {name}: {value}" for name, value in original_headers(letter.headers).items()]
    lines += ["", event, "", origin.traceback.rstrip() if origin else "It has no headers of a dead letter."]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def settle(
    settings: OperatorSettings, console: Console, fate: Fate, ids: Sequence[str], group: str, *, all_: bool
) -> int:
    """Replay or drop the letters named, or all that are open; 1 if some are not there, 2 if Kafka fails."""
    if bool(ids) == all_:
        console.print("Name dead letters by their ids, or --all.")
        return 2
    try:
        there = {each.letter_id: each for each in _read(settings, group)}
        if missing := [each for each in ids if each not in there]:
            return _unknown(console, missing)
        chosen = [there[each] for each in dict.fromkeys(ids)] if ids else list(there.values())
        for each in chosen if ids else ():
            if each.fate is not Fate.OPEN:
                console.print(f"{each.letter_id} was {each.fate} already, {each.decided}.")
        opened = [each for each in chosen if each.fate is Fate.OPEN]
        asyncio.run(decide(settings.kafka_bootstrap, opened, fate))
    except (ConnectionError, PublishFailed, TimeoutError) as error:
        return unreadable(console, error)
    except ValueError as error:
        console.print(f"[red]{escape(str(error))}.[/]")
        return 1
    for each in opened:
        console.print(f"{each.letter_id} {fate}")
    if not opened:
        console.print("No dead letter is open.")
    return 0


def _read(settings: OperatorSettings, group: str = "") -> list[Letter]:
    with closing(TopicReader(settings.kafka_bootstrap)) as reader:
        return [each for each in DeadLetters().read(reader) if group in ("", each.group)]


def _event(settings: OperatorSettings, letter: Letter) -> str:
    try:
        event = EventReader(settings.schema_registry_url).read(letter.value)
    except Unreadable as reason:
        return f"No event ({reason}). Its bytes: {(letter.value or b'').hex(' ')}"
    return orjson.dumps(event, default=str, option=orjson.OPT_INDENT_2).decode()


def _summary(letter: Letter) -> dict[str, Any]:
    origin = letter.origin
    return {
        "id": letter.letter_id,
        "group": letter.group,
        "parked_at": letter.at.isoformat(),
        "topic": origin and origin.topic,
        "partition": origin and origin.partition,
        "offset": origin and origin.offset,
        "key": _text(letter.key),
        "error": origin and origin.error,
        "reason": origin and origin.reason,
        "fate": letter.fate,
        "decided": letter.decided,
    }


def _text(key: bytes | None) -> str:
    return "" if key is None else key.decode(errors="replace")


def _time(at: datetime) -> str:
    return at.astimezone().strftime("%m-%d %H:%M:%S")


def _unknown(console: Console, ids: Sequence[str]) -> int:
    console.print(f"There is no dead letter {', '.join(ids)}; `stoa dlq list` names those that are open.")
    return 1
