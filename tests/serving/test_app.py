"""The page and the API: what is asked well is answered as `translate` would, and what is not gets a clear error."""

import asyncio
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from threading import Thread
from urllib.request import urlopen

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from dist_s2s import UserError
from dist_s2s.serving import app, server
from dist_s2s.serving.answers import Answers
from dist_s2s.serving.app import Routes
from dist_s2s.serving.batching import Batcher
from dist_s2s.serving.metrics import Metrics
from dist_s2s.serving.turns import Turns
from dist_s2s.translation.batching import Batching
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator
from tests.serving.conftest import LIMITS
from tests.toy_corpus import PAIRS

SOURCES = [source for source, _ in PAIRS[:6]]


def post(**values: object) -> tuple[str, str, bytes]:
    return "POST", "/translate", json.dumps(values).encode()


# What is wrong; the request; the status of the answer, and what it says.
BAD: list[tuple[str, tuple[str, str, bytes], int, str]] = [
    ("no JSON", ("POST", "/translate", b"text=hello"), 400, "the request is not JSON: Expecting value: line 1"),
    ("JSON that ends too early", ("POST", "/translate", b'{"text": "a'), 400, "Unterminated string"),
    ("no body", ("POST", "/translate", b""), 400, 'send {"text": "a sentence"}'),
    ("bytes that are not UTF-8", ("POST", "/translate", b'{"text": "\xff"}'), 400, "not UTF-8: byte 11"),
    ("JSON without end", ("POST", "/translate", b"[" * 3000), 400, "the request is not "),
    ("a list", ("POST", "/translate", b'["a"]'), 400, 'must be a JSON object, {"text": ...}, but is ["a"]'),
    ("no text", post(beam_size=2), 400, '"text" must be a sentence or a list'),
    ("a number for a text", post(text=3), 400, '"text" must be a sentence or a list'),
    ("no sentence", post(text=[]), 400, 'the list "text" is empty'),
    ("null among sentences", post(text=["a", None]), 400, "sentence 2 must be text, but is null"),
    ("a key that is not there", post(text="a", beamsize=2), 400, 'no key "beamsize"; those there are: text, beam_size'),
    ("a beam of 0", post(text="a", beam_size=0), 400, "beam_size must be a whole number from 1 to 6, but is 0"),
    ("a beam that is too large", post(text="a", beam_size=7), 400, "from 1 to 6, but is 7"),
    ("a beam in words", post(text="a", beam_size="5"), 400, 'but is "5"'),
    ("a beam that is true", post(text="a", beam_size=True), 400, "but is true"),
    ("a beam that is not finite", post(text="a", beam_size=float("inf")), 400, "but is Infinity"),
    ("more than the beam has", post(text="a", n_best=2), 400, "n_best is 2, but a beam of 1 finds no more"),
    ("attention in words", post(text="a", attention="yes"), 400, 'attention must be true or false, but is "yes"'),
    ("attention of several", post(text=["a", "b"], attention=True), 400, "attention is for one sentence"),
    ("a line break", post(text="a\nb"), 400, "sentence 1 has a line break"),
    ("a NUL character", post(text="a\0b"), 400, "sentence 1 has a NUL character"),
    ("half a character", ("POST", "/translate", rb'{"text": "a\ud83d"}'), 400, "half of a surrogate pair"),
    ("a long sentence", post(text=["a", "b" * 51]), 413, "sentence 2 has 51 characters; at most 50 are allowed"),
    ("many sentences", post(text=["a"] * 9), 413, "9 sentences are too many; send at most 8"),
    ("a sentence of 1 MB", post(text="a" * 1_000_000), 413, "the request is larger than 4,000 bytes"),
    ("no word", ("GET", "/neighbours", b""), 400, "name a word: /neighbours?word=..."),
    ("an unknown word", ("GET", "/neighbours?word=catt&side=target", b""), 404, "close to it are cat"),
    ("a special token", ("GET", "/neighbours?word=%3Cunk%3E", b""), 404, "<unk> is a special token"),
    ("a long word", ("GET", f"/neighbours?word={'a' * 101}", b""), 413, "the word has 101 characters"),
    ("no side", ("GET", "/neighbours?word=a&side=left", b""), 400, 'source or target, but is "left"'),
    ("no neighbours", ("GET", "/neighbours?word=a&number=0", b""), 400, "number must be a whole number from 1 to 100"),
    ("neighbours in words", ("GET", "/neighbours?word=a&number=ten", b""), 400, 'but is "ten"'),
    (
        "a token in words",
        ("GET", "/neighbours?word=a&token=yes", b""),
        400,
        'token must be true or false, but is "yes"',
    ),
    ("a parameter that is not there", ("GET", "/neighbours?word=a&k=3", b""), 400, 'no parameter "k"'),
    ("another method", ("GET", "/translate", b""), 405, "/translate takes POST, not GET"),
    ("another path", ("GET", "/translation", b""), 404, "there is no /translation here"),
    ("a path that leads elsewhere", ("GET", "/../server.py", b""), 404, "here"),
]


@pytest.mark.parametrize(("request_", "status", "message"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_requests(client: TestClient, request_: tuple[str, str, bytes], status: int, message: str) -> None:
    method, path, body = request_
    answer = client.request(method, path, content=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert client.post("/translate", json={"text": SOURCES[0]}).status_code == 200


def test_another_name_for_this_machine_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "", "[", "127.0.0.1.evil.example:80", "evil.example@127.0.0.1"):
        answer = client.get("/health", headers={"Host": host})
        assert (answer.status_code, answer.json()["error"]) == (421, f"this service is called 127.0.0.1, not {host}")
    assert client.get("/health", headers={"Host": "127.0.0.1:8000"}).status_code == 200


def test_pages_from_elsewhere_may_not_ask(client: TestClient) -> None:
    for origin in ("http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:8000", "null"):
        headers = {"Host": "127.0.0.1:8000", "Origin": origin, "Content-Type": "text/plain"}
        answer = client.post("/translate", content=b'{"text": "a"}', headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, f"pages of {origin} may not ask this service")
    headers = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}
    assert client.post("/translate", json={"text": "a"}, headers=headers).status_code == 200


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_translate(client: TestClient, translator: Translator, beam_size: int) -> None:
    """Alone, in a list, and by many clients at once, whose sentences are then translated together."""
    expected = [each.text for each in translator.translate(SOURCES, SearchOptions.of(translator.config, beam_size))]

    def ask(text: object) -> list[str]:
        answer = client.post("/translate", json={"text": text, "beam_size": beam_size})
        return [each["text"] for each in answer.json()["translations"]]

    assert ask(SOURCES) == expected
    assert [ask(source) for source in SOURCES] == [[text] for text in expected]
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(ask, SOURCES * 3)) == [[text] for text in expected] * 3


def test_the_search_options_of_a_service_are_for_all_of_its_translations(translator: Translator) -> None:
    found = Answers(translator, {"min_length": 3, "no_repeat_ngram": 1}).translate(SOURCES, 2, 1, attention=False)
    for words in (each["text"].split() for each in found):
        assert len(words) == len(set(words)) >= 3
    with pytest.raises(UserError, match="beam_size is 1000, but there are only"):
        Answers(translator).translate(SOURCES, 1000, 1, attention=False)


def test_neither_padding_nor_batches_change_a_hypothesis(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, with a sentence that is much longer than they are, and in batches of other sizes."""
    options = SearchOptions.of(translator.config, 4)
    together = translator.search_n_best(["".join(SOURCES), *SOURCES], 4, options)[1:]
    for batch_size in (1, 2):
        monkeypatch.setattr(translator, "batching", Batching(batch_size))
        for alone, found in zip(translator.search_n_best(SOURCES, 4, options), together, strict=True):
            assert [each.ids for each in alone] == [each.ids for each in found]
    for source, found in zip(SOURCES, together, strict=True):
        [alone] = translator.search_n_best([source], 4, options)
        assert [each.ids for each in alone] == [each.ids for each in found]
        assert [each.score for each in alone] == pytest.approx([each.score for each in found], abs=1e-6)


def test_n_best_and_attention(client: TestClient) -> None:
    asked = {"text": SOURCES[0], "beam_size": 4, "n_best": 3, "attention": True}
    [answer] = client.post("/translate", json=asked).json()["translations"]
    assert [len(answer["n_best"]), answer["text"]] == [3, answer["n_best"][0]["text"]]
    assert [each["score"] for each in answer["n_best"]] == sorted((e["score"] for e in answer["n_best"]), reverse=True)
    attention = answer["attention"]
    assert attention["source"] == [*SOURCES[0], "<eos>"]
    assert [len(row) for row in attention["weights"]] == [len(attention["source"])] * len(attention["target"])
    assert [sum(row) for row in attention["weights"]] == pytest.approx([1.0] * len(attention["target"]), abs=1e-3)


@pytest.mark.parametrize("text", ["", "  ", "\ufeff", "\u200b"])
def test_an_empty_sentence_has_an_empty_translation(client: TestClient, text: str) -> None:
    asked = {"text": text, "beam_size": 2, "n_best": 2, "attention": True}
    [answer] = client.post("/translate", json=asked).json()["translations"]
    assert (answer["text"], len(answer["n_best"]), answer["is_cut"]) == ("", 1, False)
    assert answer["attention"] == {"note": "the sentence is empty"}


def test_neighbours_are_words_by_falling_cosine(client: TestClient) -> None:
    answer = client.get("/neighbours", params={"word": "cat", "side": "target", "number": 4}).json()
    scores = [each["score"] for each in answer["neighbours"]]
    assert (answer["word"], len(scores), scores) == ("cat", 4, sorted(scores, reverse=True))
    assert "cat" not in [each["word"] for each in answer["neighbours"]]


def test_health_and_metrics(client: TestClient) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["run"], health["limits"]["max_body"]) == ("ok", "toy", LIMITS.max_body)
    client.get("/no/such/path")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        r'dist_s2s_requests_total\{path="/health",status="200"\} \d',
        r'dist_s2s_requests_total\{path="other",status="404"\} \d',
        r"dist_s2s_batch_sentences_count \d",
        r"dist_s2s_waiting 0\.0",
    ):
        assert re.search(rf"^{line}", answer.text, re.MULTILINE), line


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/icon.svg", "image/svg+xml"), ("/page.css", "text/css"), ("/page.js", "text/javascript")],
)
def test_the_page_loads_nothing_from_elsewhere_and_inserts_no_markup(client: TestClient, path: str, kind: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"].startswith(kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "://" not in answer.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=|style=", answer.text)


def test_every_label_and_script_finds_its_element() -> None:
    page, script = (files("dist_s2s.serving").joinpath("page", f"page.{kind}").read_text() for kind in ("html", "js"))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:for|aria-labelledby)="([^"]+)"', page)) | set(
        re.findall(r'byId\("(.*?)"\)', script)
    ) <= set(ids)


def served(translator: Translator, **limits: int) -> ASGIApp:
    metrics, most = Metrics(), replace(LIMITS, **limits)
    batcher = Batcher(Turns(Answers(translator), lambda: False), most, metrics, lambda: None)
    return Routes(batcher, most, metrics, {"run": "toy", "ranks": 1}).app(frozenset({"127.0.0.1"}))


def test_a_beam_that_the_vocabulary_has_not_is_the_clients_mistake(translator: Translator) -> None:
    size = len(translator.target.vocabulary)
    with TestClient(served(translator, max_beam_size=2 * size), "http://127.0.0.1") as client:
        answer = client.post("/translate", json={"text": SOURCES[0], "beam_size": size})
        assert (answer.status_code, answer.json()["error"][:12]) == (400, "beam_size is")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_large_bodies_that_are_allowed_are_read(translator: Translator, is_chunked: bool) -> None:
    body = json.dumps({"text": SOURCES[0], "beam_size": 1}).encode() + b" " * (app._MOST_DRAINED + 1)
    with TestClient(served(translator, max_body=2 * app._MOST_DRAINED), "http://127.0.0.1") as client:
        answer = client.post("/translate", content=iter([body]) if is_chunked else body)
        assert answer.status_code == 200, answer.text


def test_a_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SECONDS_FOR_A_REQUEST", 0.1)

    async def hello(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)  # longer than a silent client may take
            await PlainTextResponse("hello")(scope, receive, send)

    listener = server.bind("127.0.0.1", 0)
    address = server.listen(listener)
    signals = server.StopSignals()
    thread = Thread(target=server.serve, args=(hello, listener, signals))
    thread.start()
    try:
        with (
            socket.create_connection(listener.getsockname()) as silent,
            socket.create_connection(listener.getsockname()) as slow,
        ):
            slow.sendall(b"GET / HTTP/1.1\r\nHost: 127")  # and no more
            with urlopen(address) as answer:
                assert answer.read() == b"hello"
            for client in (silent, slow):
                client.settimeout(5)
                assert client.recv(100) == b""
    finally:
        signals.stop()
        thread.join(10)
