"""The load generator counts right, growth is told from noise, and a bench of a shop gives figures."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stoa_load.cost import Cost, Idle, Reading
from stoa_load.load import BadAnswer, Http, closed_loop, open_loop
from stoa_load.soak import Series, judged
from stoa_stack.percentile import percentile

STOA = Path(sys.executable).with_name("stoa")


async def served(answers: list[bytes]) -> tuple[asyncio.Server, str]:
    """A server that gives these answers, one for each request."""
    left = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            await reader.readuntil(b"\r\n\r\n")
            for piece in left.pop(0).split(b"|"):  # as it may come in pieces
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_answers_are_read_with_a_length_or_in_chunks_however_they_come() -> None:
    server, url = await served(
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nconte|nt-length: 5\r\n\r\nhe|llo",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel|\r\n2\r\nlo\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ]
    )
    client = Http(url)
    async with server:
        assert [await client.send(client.encode("GET", "/")) for _ in range(4)] == [
            b"hello",
            b"hello",
            b"hello",
            b"",
        ]
    client.close()


async def test_an_answer_other_than_success_is_an_error_and_one_for_load_is_told_apart() -> None:
    server, url = await served(
        [
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
        ]
    )
    client = Http(url)
    async with server:
        for shed in (False, True):
            with pytest.raises(BadAnswer) as refused:
                await client.send(client.encode("GET", "/"))
            assert refused.value.shed is shed
    client.close()


async def test_a_closed_loop_begins_again_when_an_act_is_done() -> None:
    outcome = await closed_loop([lambda: asyncio.sleep(0.02)] * 2, 0.2)
    assert 10 <= len(outcome.times) <= 22
    assert outcome.percentile(50) >= 20


async def test_an_open_loop_keeps_its_rate_and_says_when_there_are_too_few_to_hold_it() -> None:
    enough = await open_loop([lambda: asyncio.sleep(0.01)] * 5, 50, 0.4)
    assert (len(enough.times), enough.errors, enough.unmet) == (20, 0, 0)
    too_few = await open_loop([lambda: asyncio.sleep(0.5)], 50, 0.4)
    assert (len(too_few.times), too_few.errors, too_few.unmet) == (1, 0, 19)


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([float(number) for number in range(1, 101)], 99) == 100
    assert percentile([3.0, 1.0, 2.0], 50) == 2
    assert percentile([], 50) == 0


def test_a_cost_is_what_was_spent_beyond_the_idle_consumption() -> None:
    idle = Idle.between(Reading(0, {"order": 1.0}, {"order": 10}), Reading(10, {"order": 1.5}, {"order": 20}))
    cost = Cost.between(
        Reading(20, {"order": 2}, {"order": 30}), Reading(24, {"order": 3}, {"order": 134}), idle
    )
    assert cost.cpu_ms["order"] == pytest.approx(800)
    assert cost.per(100).statements["order"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("per_sample", "noise", "grows"), [(1.0, 0.5, True), (0.0, 5.0, False), (0.01, 1.0, False)]
)
def test_growth_is_told_from_noise(per_sample: float, noise: float, grows: bool) -> None:
    chance = random.Random(7)
    series = Series("memory MB", "order")
    for number in range(120):
        series.at.append(number * 10)
        series.values.append(80 + number * per_sample + chance.uniform(-noise, noise))
    assert series.grows() is grows


@pytest.mark.parametrize(
    ("kind", "minutes", "is_judged"), [("memory MB", 4.9, False), ("memory MB", 5, True), ("lag", 1, True)]
)
def test_a_short_soak_does_not_judge_memory(kind: str, minutes: float, is_judged: bool) -> None:
    assert judged(Series(kind, "postgres"), minutes * 60) is is_judged


async def test_requests_are_those_of_the_api_and_answers_are_read_as_json() -> None:
    server, url = await served([b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"order_id":"a"}'])
    client = Http(url, "token")
    async with server:
        assert (await client.place_order(request_id="r", payment_token="tok_visa"))["order_id"] == "a"
    head, _, body = client.encode("POST", "/api/v1/orders", {"request_id": "r"}).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /api/v1/orders HTTP/1.1"
    assert b"authorization: Bearer token" in head.splitlines()
    assert json.loads(body) == {"request_id": "r"}
    client.close()


async def test_an_answer_that_is_not_http_is_an_error() -> None:
    server, url = await served([b"SSH-2.0-OpenSSH\r\n"])
    client = Http(url)
    async with server:
        with pytest.raises(ConnectionError):
            await client.send(client.encode("GET", "/"))
    client.close()


@pytest.mark.stack
@pytest.mark.timeout(240)
def test_a_bench_of_the_running_shop_gives_figures(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    scenarios = ["direct", "empty", "empty-direct", "product", "cart", "order"]
    done = subprocess.run(
        [STOA, "bench", "--scenario", ",".join(scenarios), "--seconds", "1", "--json", file],
        env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["scenario"] for line in lines] == scenarios
    for line in lines:
        assert line["errors"] == 0, line
        assert line["requests"] > 0
        assert line["cpu_ms"] > 0
    order = lines[-1]
    assert order["settled_p50_ms"] > 0
    assert 0 < order["sql_by_service"]["order"] < 30
