"""Cards of models, and their upload: a local server plays the hub."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from micro import saved

from unimo.inference.card import model_card
from unimo.inference.saving import CONFIG, METRICS

TOKEN = "hf_test"


class Hub(http.server.ThreadingHTTPServer):
    """Knows the repository lab/model, and takes commits of whoever has `TOKEN`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.refuses = False
        """Commits fail."""
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802 - its name there
        self.answer(b"")

    def do_POST(self) -> None:  # noqa: N802
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def answer(self, body: bytes) -> None:
        if not self.path.startswith(("/api/models/lab/model", "/api/validate-yaml")):
            return self.send(404, {"error": "Repository not found"}, "RepoNotFound")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(403, {"error": "Forbidden"})
        if self.path.endswith("/validate-yaml"):
            return self.send(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.send(200, {"files": modes})
        if "/commit/" not in self.path:
            return self.send(200, {"id": "lab/model", "sha": "0" * 40, "siblings": []})
        if self.server.refuses:
            return self.send(400, {"error": "the front matter is wrong"})
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        address = f"{self.server.address}/lab/model/commit/{'1' * 40}"
        return self.send(200, {"commitUrl": address, "commitOid": "1" * 40, "success": True})

    def send(self, code: int, content: dict[str, Any], error: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)  # it reads both once
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = saved("vqa", tmp_path_factory.mktemp("model"))
    scores = {"overall": 51.25, "split": "val", "train_split": "train", "selection": "clean"}
    (folder / METRICS).write_text(json.dumps(scores))
    return folder


def test_a_card_says_what_the_config_and_the_metrics_do(model: Path) -> None:
    _, front, text = model_card(model).split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["pipeline_tag"] == "visual-question-answering"
    assert "arxiv:2305.13697" in content["tags"] and "license" not in content
    (result,) = content["model-index"][0]["results"]
    assert result["dataset"] == {"name": "scenes", "type": "scenes", "split": "val"}
    assert result["metrics"] == [{"type": "overall", "name": "overall", "value": 51.25}]
    for words in (
        "configs/unimo3/vqa.yaml", "| steps | 3 |", "| data | scenes |", "Scores on `val`",
        "| overall | 51.25 |", "`clean`", "unimo.load(DIR)", "## Licence",
    ):  # fmt: skip
        assert words in text
    assert str(model.parent) not in text


def test_a_card_of_the_hub_reads_this_one(model: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(model_card(model))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("overall", 51.25, "val")


def test_a_model_is_pushed_as_it_is_with_its_card(hub: Hub, model: Path, tool: Any) -> None:
    local = str(model.parent)
    assert yaml.safe_load((model / CONFIG).read_text())["output_dir"].startswith(local)
    code, text, error = tool("weights", "push", model, "lab/model")
    assert code == 0, error
    assert f"{hub.address}/lab/model/commit/" in text
    config = hub.files.pop(CONFIG)
    assert hub.files == {path.name: path.read_bytes() for path in model.iterdir() if path.name != CONFIG} | {
        "README.md": model_card(model).encode()
    }
    assert not [name for name, content in hub.files.items() if local.encode() in content]
    assert local not in config.decode() and yaml.safe_load(config)["output_dir"] == model.parent.name


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no token", "there is no token for the hub; set HF_TOKEN"),
        (
            "no repository",
            "no repository lab/other that this token may see; make it: hf repo create lab/other",
        ),
        ("no name", "a/b/c is no name of a repository; expected OWNER/NAME"),
        ("no right", "the token may not write to lab/model (403)"),
        ("refused", "lab/model: the hub refused (BadRequestError"),
        ("no network", "the hub cannot be reached"),
        ("no model", "no model directory at"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_changed(
    case: str, message: str, hub: Hub, model: Path, tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuses = case == "refused"
    if case == "no token":
        monkeypatch.delenv("HF_TOKEN")
    elif case == "no right":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    elif case == "no network":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    repository = {"no repository": "lab/other", "no name": "a/b/c"}.get(case, "lab/model")
    code, text, error = tool("weights", "push", "absent" if case == "no model" else model, repository)
    assert code == 2 and message in error and not text
    assert not hub.files
