"""Back-translation: an endpoint that works, one that does not, and files of translations."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unimo.augment.corpus import Caption
from unimo.augment.translation import FileTranslations, HttpTranslator
from unimo.errors import DataError

CAPTIONS = [Caption("s1", "i1", "A dog runs ."), Caption("s2", "i1", "Two cats .")]
Serve = Callable[[Callable[[dict, int], bytes]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an endpoint that answers with the result of a function of the request and its number."""
    servers = []

    def start(answer: Callable[[dict, int], bytes]) -> str:
        calls = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802 - the name the base class looks for
                calls.append(1)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                content = answer(json.loads(body), len(calls))
                self.send_response(200 if content else 503)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client did not wait
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/translate"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def echo(request: dict, _: int) -> bytes:
    """Mark each text with its languages; Spanish returns every text unchanged."""
    unchanged = "es" in (request["source"], request["target"])
    texts = [text if unchanged else f"{text} {request['target']}" for text in request["q"]]
    return json.dumps({"translatedText": texts}).encode()


def test_three_languages_and_no_unchanged_text(serve: Serve):
    found = HttpTranslator(serve(echo))(CAPTIONS)
    assert found[0] == [
        {"text": "A dog runs . zh en", "via": "zh"},
        {"text": "A dog runs . fr en", "via": "fr"},
    ]
    assert [row["via"] for row in found[1]] == ["zh", "fr"]


def test_a_failure_is_tried_again(serve: Serve):
    url = serve(lambda request, call: b"" if call in (1, 2) else echo(request, call))
    assert len(HttpTranslator(url, via=("fr",), wait=0.01)(CAPTIONS)[0]) == 1


@pytest.mark.parametrize(
    "nonsense",
    [b"<html>", b"[]", b'{"translatedText": ["one"]}', b'{"translatedText": ["x", 3]}',
     b'{"translatedText": ["...", "?"]}', json.dumps({"translatedText": ["x" * 9999] * 2}).encode()],
)  # fmt: skip
def test_nonsense_ends_in_a_clear_stop(serve: Serve, nonsense: bytes):
    translator = HttpTranslator(serve(lambda request, call: nonsense), retries=1, wait=0.01)
    with pytest.raises(
        DataError, match=r"no usable answer for en to zh in 2 attempts .*run the same command"
    ):
        translator(CAPTIONS)


def test_a_silent_endpoint_times_out(serve: Serve):
    def sleep(request: dict, call: int) -> bytes:
        time.sleep(1.0)
        return echo(request, call)

    begin = time.monotonic()
    with pytest.raises(DataError, match="timed out|timeout|Timeout"):
        HttpTranslator(serve(sleep), timeout=0.1, retries=1, wait=0.01)(CAPTIONS)
    assert time.monotonic() - begin < 3
    with pytest.raises(DataError, match="not an http"):
        HttpTranslator("ftp://here")


def drip(connection: socket.socket, begin: bytes, over: threading.Event) -> None:
    """Answer with the beginning, then a byte now and then."""
    with contextlib.suppress(OSError), connection:
        connection.recv(65536)
        connection.sendall(begin)
        while not over.wait(0.02):
            connection.sendall(b"x")


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9999\r\n",
     b"HTTP/1.1 503 Busy\r\nContent-Length: 99999\r\n\r\n"],
    ids=["no status", "headers", "with a length", "without a length", "chunks", "failure"],
)  # fmt: skip
def test_an_answer_that_drips_is_over_in_time(begin: bytes):
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=drip, args=(connection, begin, over), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/translate"
        started = time.monotonic()
        with pytest.raises(DataError, match=r"no usable answer .* in 2 attempts \((TimeoutError|HTTPError)"):
            HttpTranslator(url, timeout=0.3, retries=1, wait=0.01)(CAPTIONS)
        over.set()
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("content", [b" " * (16 << 20) + b"{}", b"[" * 100_000, b"[" * 900 + b"]" * 900])
def test_answers_without_measure(serve: Serve, content: bytes):
    translator = HttpTranslator(serve(lambda request, call: content), retries=0, timeout=20)
    with pytest.raises(DataError, match="no usable answer") as caught:
        translator(CAPTIONS)
    assert len(str(caught.value)) < 500


def test_ready_translations(tmp_path: Path):
    path = tmp_path / "ready.jsonl"
    rows = [("s1", "A hound runs", "fr"), ("s1", "a DOG runs", "zh"), ("s1", "A hound  runs .", "es")]
    path.write_text("\n".join(json.dumps(dict(zip(("id", "text", "via"), row, strict=True))) for row in rows))
    found = FileTranslations(path, tmp_path / "work")(CAPTIONS)
    assert found == [[{"text": "A hound runs", "via": "fr"}], []]
    path.write_text('{"id": "s2", "text": "A pair of cats"}\n')
    assert FileTranslations(path, tmp_path / "work")(CAPTIONS)[1] == [{"text": "A pair of cats", "via": ""}]


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"id": 1}', '{"id": 1, "text": ""}', '{"id": 1, "text": 2}']
)
def test_bad_lines_are_named_and_left_out(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "ready.jsonl"
    path.write_text(f'{{"id": "s1", "text": "fine"}}\n{line}\n')
    assert FileTranslations(path, tmp_path)(CAPTIONS)[0] == [{"text": "fine", "via": ""}]
    assert "ready.jsonl, line 2" in caplog.text
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError, match="2 of 2 samples of .*ready.jsonl are broken.*ready.jsonl, line 1"):
        FileTranslations(path, tmp_path)
    with pytest.raises(DataError, match="cannot read the translations"):
        FileTranslations(tmp_path / "none.jsonl", tmp_path)


@pytest.mark.parametrize("key", ["id", "text", "via"])
@pytest.mark.parametrize("value", [float("nan"), 0.5, True, ["x"], {"a": 1}, "\u200b", "a\0b"])
def test_values_that_are_no_texts(tmp_path: Path, key: str, value: object, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "ready.jsonl"
    lines = [{"id": "s1", "text": "fine"}, {"id": "s2", "text": "fine", "via": "fr"} | {key: value}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert FileTranslations(path, tmp_path)(CAPTIONS) == [[{"text": "fine", "via": ""}], []]
    assert re.search(f"ready.jsonl, line 2: .*{key}", caplog.text)


def test_captions_without_letters_may_come_back_as_they_are(serve: Serve):
    captions = [Caption("s1", "i1", text) for text in ("1970", "!!!", "A dog .")]
    found = HttpTranslator(serve(echo), via=("es", "fr"), retries=0)(captions)
    assert [[row["text"] for row in rows] for rows in found][2] == ["A dog . fr en"] and len(found) == 3
    back = HttpTranslator(serve(lambda request, _: json.dumps({"translatedText": request["q"]}).encode()))
    assert back(captions) == [[], [], []]


def test_half_a_surrogate_pair_is_no_obstacle(tmp_path: Path):
    path = tmp_path / "ready.jsonl"
    path.write_text(json.dumps({"id": "s1", "text": "A hound \ud83d", "via": "fr"}))
    assert FileTranslations(path, tmp_path / "work")(CAPTIONS)[0] == [{"text": "A hound ?", "via": "fr"}]
