"""The command serve as users start it: on two ranks, and with what keeps it from starting."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_extras import in_bare_environment
from tests.commands import Command, run
from tests.toy_corpus import PAIRS

SOURCES = [source for source, _ in PAIRS]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def connected(port: int) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def ask(port: int, path: str, values: object = None) -> tuple[int, Any]:
    body = None if values is None else json.dumps(values)
    with connected(port) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def start(saved_run: Path, ranks: int) -> tuple[Command, int]:
    """Start a service, and wait until it listens."""
    port = free_port()
    command = Command("dist_s2s.serve", "--run", saved_run, "--port", port, ranks=ranks)

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    command.wait_until(listens)
    return command, port


def test_two_ranks_serve_many_clients_until_one_rank_is_told_to_stop(saved_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{source}\n" for source in SOURCES), encoding="utf-8")
    asked = ("--run", saved_run, "--input", tmp_path / "in.txt", "--beam_size", 3)
    expected = run("dist_s2s.translate", *asked).output.splitlines()
    command, port = start(saved_run, ranks=2)
    answers = ThreadPoolExecutor(8).map(lambda text: ask(port, "/translate", {"text": text, "beam_size": 3}), SOURCES)
    with connected(port) as gone:
        gone.request("POST", "/translate", json.dumps({"text": SOURCES[:60]}))
    assert [(status, answer["translations"][0]["text"]) for status, answer in answers] == [(200, t) for t in expected]
    for path, status in (("/neighbours?word=cat&side=target", 200), ("/neighbours?word=catt&side=target", 404)):
        assert ask(port, path)[0] == status
    assert ask(port, "/translate", {"text": "a" * 1_000_000})[0] == 413
    assert ask(port, "/health")[1]["ranks"] == 2
    [answer] = ask(port, "/translate", {"text": SOURCES[0], "attention": True})[1]["translations"]
    assert len(answer["attention"]["source"]) == len(SOURCES[0]) + 1
    with ThreadPoolExecutor(1) as late:
        under_way = late.submit(ask, port, "/translate", {"text": SOURCES[:48], "beam_size": 3})
        command.wait_until(lambda: metric(port, "dist_s2s_waiting") > 0 or under_way.done())
        os.kill(command.processes[1].pid, signal.SIGTERM)  # the rank that nobody is connected with
        assert [each["text"] for each in under_way.result()[1]["translations"]] == expected[:48]
    finished = command.wait()
    assert finished.outputs == [f"serving {saved_run} on http://127.0.0.1:{port} (Ctrl-C stops it)\n", ""]
    assert finished.errors == ["", ""]


def metric(port: int, name: str) -> float:
    with connected(port) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_what_keeps_it_from_starting_and_how_it_is_interrupted(saved_run: Path, tmp_path: Path) -> None:
    command, port = start(saved_run, ranks=1)
    again = run("dist_s2s.serve", "--run", saved_run, "--port", port, status=2)
    message = f"cannot listen on port {port} of 127.0.0.1: Address already in use; give another --port"
    assert again.errors == [f"error: {message}\n"]
    command.signal(signal.SIGINT)
    assert command.wait(128 + signal.SIGINT).errors == [""]
    for options, said in (
        (("--run", tmp_path), "is not a run directory"),
        (("--run", saved_run, "--host", "no.such.host.invalid"), "--host no.such.host.invalid is no address: "),
        (("--run", saved_run, "--host", "203.0.113.1"), "cannot listen on port 8000 of 203.0.113.1: "),
        (("--run", saved_run, "--port", 65536), "must be a whole number from 0 to 65535, but is '65536'"),
        (("--run", saved_run, "--max_batch", 0), "must be at least 1, but is 0"),
    ):
        [errors] = run("dist_s2s.serve", *options, status=2).errors
        assert said in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "prometheus_client"])
def test_the_extra_that_is_missing_is_named(missing: str) -> None:
    command = ["dist-s2s", "serve", "--run", "runs/none"]
    said = f"needs the extra \"serve\": pip install 'dist-s2s[serve]' (missing module: {missing})"
    expected = (2, "", f"error: dist-s2s serve {said}\n")
    assert in_bare_environment("dist_s2s.cli.main", command, (missing,)) == expected
