"""Released weights by name: a local server plays the hub and a plain host."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import unimo
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError, UnavailableError
from unimo.inference.loading import find_model
from unimo.inference.release import fetch_card, releases
from unimo.nn.config import TextConfig
from unimo.nn.towers import RobertaTower
from unimo.weights import archives, fetching, huggingface
from unimo.weights.cards import cards, find_card, get_card
from unimo.weights.files import read_safetensors
from unimo.weights.huggingface import read_sizes
from unimo.weights.layers import load_tower
from unimo.weights.named import tower_folder
from unimo.weights.tables import cards_table

ROBERTA = Path(__file__).resolve().parents[2] / "assets" / "hf_roberta_tiny"
NAMES = ("config.json", "model.safetensors")
SIZES = read_sizes(huggingface.ROBERTA, json.loads((ROBERTA / "config.json").read_text()))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Host(http.server.ThreadingHTTPServer):
    """Serves the tiny RoBERTa as a hub, `/OWNER/NAME/resolve/main/FILE`, and as a plain host, `/FILE`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.cut = 0
        """Number of answers that end in the middle."""
        self.asking, self.free = threading.Event(), threading.Event()
        """A file was asked for; answers may be sent."""
        self.free.set()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 - its name there
        self.answer()

    def do_GET(self) -> None:  # noqa: N802
        self.answer()

    def answer(self) -> None:
        name = self.path.rpartition("/")[2]
        path = self.server.folder / name
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, begin = path.read_bytes(), 0
        if wanted := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(wanted[1])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{sha256(self.server.folder / name)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            self.server.asked[name] += 1
            self.server.asking.set()
            self.server.free.wait(30)
            part = content[begin:]
            if self.server.cut and name == "model.safetensors":
                self.server.cut -= 1
                part = part[: len(part) // 2]
                self.close_connection = True
            self.wfile.write(part)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose hub has the repository lab/tiny, and the card `tiny` of it."""
    folder = tmp_path / "host"
    shutil.copytree(ROBERTA, folder)
    server = Host(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("UNIMO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # which it reads when imported
    write_card(tmp_path, sources=["hf://lab/tiny"])
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def write_card(tmp_path: Path, name: str = "tiny", **fields: object) -> None:
    tower = {"title": "a tower", "part": "text tower", "converter": "hf-roberta", "config": "config.json"}
    path = tmp_path / "home" / "cards" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**tower, "weights": ["model.safetensors"], **fields}))


def sources(host: Host) -> dict[str, list[str]]:
    return {"hub": ["hf://lab/tiny"], "address": [host.address], "file": [host.folder.as_uri()]}


@pytest.mark.parametrize("kind", ["hub", "address", "file"])
def test_a_name_is_fetched_and_converted_once_and_starts_a_tower(kind: str, host: Host, tmp_path: Path):
    write_card(tmp_path, sources=sources(host)[kind])
    tower = RobertaTower(TextConfig(**SIZES))
    load_tower(tower, "tiny")
    if kind == "hub":
        load_tower(tower, "lab/tiny")
    weights = read_safetensors(ROBERTA / "model.safetensors")
    word = next(value for name, value in weights.items() if name.endswith("word_embeddings.weight"))
    assert (tower.embeddings.word.weight.numpy() == word).all()
    assert host.asked == ({} if kind == "file" else dict.fromkeys(NAMES, 1))
    leftovers = {path.name for path in (tmp_path / "home/released").rglob("*") if path.is_file()}
    assert leftovers - {".tiny.lock"} == (set() if kind == "file" else set(NAMES))


@pytest.mark.parametrize("kind", ["hub", "address"])
def test_a_cut_download_goes_on_or_is_fetched_anew(kind: str, host: Host, tmp_path: Path):
    write_card(tmp_path, sources=sources(host)[kind])
    host.cut = 1
    tower_folder("tiny")
    assert sha256(tmp_path / "home/released/tiny/model.safetensors") == sha256(ROBERTA / "model.safetensors")
    assert host.asked["model.safetensors"] == 2


@pytest.mark.parametrize("kind", ["hub", "address", "file"])
def test_a_wrong_checksum_is_refused_and_the_good_file_stays(kind: str, host: Host, tmp_path: Path):
    good = {"model.safetensors": sha256(ROBERTA / "model.safetensors")}
    write_card(tmp_path, sources=sources(host)[kind], sha256=good)
    folder = fetch_card(get_card("tiny"))
    path = folder / "model.safetensors"
    before = sha256(path)
    (host.folder / "model.safetensors").write_bytes(b"something else")
    if kind == "file":
        folder.rename(folder.with_name("kept"))
        folder = folder.with_name("kept")
    with pytest.raises(CheckpointError, match=r"SHA-256 [0-9a-f]{64}, expected " + good["model.safetensors"]):
        fetch_card(get_card("tiny"), again=True)
    assert sha256(folder / "model.safetensors") == before
    if kind != "file":
        assert sha256(tmp_path / "home/released/tiny/model.safetensors") == good["model.safetensors"]


def test_two_processes_that_ask_at_once_download_once(host: Host):
    code = "from unimo.weights.named import tower_folder; print(tower_folder('tiny'), end='')"
    host.free.clear()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert host.asking.wait(60)  # it is downloading
        threading.Timer(0.3, host.free.set).start()
        assert str(tower_folder("tiny")) == process.communicate()[0]
    assert host.asked == dict.fromkeys(NAMES, 1)


def test_offline_the_message_says_what_to_put_where(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "home/released/tiny"
    with pytest.raises(CheckpointError, match=f"fetch model.safetensors: HF_HUB_OFFLINE .*into {folder}/ "):
        tower_folder("tiny")
    folder.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(ROBERTA / name, folder)
    assert (tower_folder("tiny") / "model.safetensors").is_file() and not host.asked


def test_a_host_that_is_not_there_and_a_file_that_it_lacks(host: Host, tmp_path: Path):
    write_card(
        tmp_path, sources=["http://127.0.0.1:9", host.address, "hf://lab/tiny"], weights=["absent.bin"]
    )
    with pytest.raises(CheckpointError) as raised:
        tower_folder("tiny")
    for text in ("127.0.0.1:9/absent.bin: ConnectionError", f"{host.address} has no absent.bin",
                 "hf://lab/tiny has no absent.bin", "released/tiny/"):  # fmt: skip
        assert text in str(raised.value)


def test_a_host_whose_address_is_looked_up_for_minutes_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "_PATIENCE", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(1))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    begin = time.perf_counter()
    with pytest.raises(UnavailableError, match=r"no address of hub.invalid is found.*Put model.safetensors"):
        fetching.get_file(get_card("roberta-base"), ["model.safetensors"], Path("nowhere"))
    assert time.perf_counter() - begin < 0.5


def test_a_path_wins_and_an_unknown_name_gets_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roberta-base").mkdir()
    assert tower_folder("roberta-base") == Path("roberta-base")
    tower = RobertaTower(TextConfig(hidden_size=8, num_layers=1, num_heads=1, vocab_size=9, max_position=8))
    with pytest.raises(CheckpointError, match="nearest: roberta-large"):
        load_tower(tower, "roberta-lagre")
    with pytest.raises(CheckpointError, match="nearest: unimo_base"):
        unimo.load("unimo_bsae")
    with pytest.raises(CheckpointError, match="bert-base-uncased is a text tower.*model.text.init="):
        find_model("bert-base-uncased")
    with pytest.raises(ConfigError, match="vision tower|no tokenizer"):
        load_tokenizer("clip-vit-base-patch16")
    assert find_card("../cards/roberta-base") is None
    for source in ("openai/clip-vit-base-patch16", "hf://openai/clip-vit-base-patch16"):
        assert find_card(source) == get_card("clip-vit-base-patch16")
    assert find_card("FacebookAI/roberta-base") == get_card("roberta-base")


def test_a_folder_of_hugging_face_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("UNIMO_HOME", str(tmp_path / "home"))
    caplog.set_level("INFO", "unimo")
    folder, tower = tmp_path / "my roberta", RobertaTower(TextConfig(**SIZES))
    shutil.copytree(ROBERTA, folder)
    (folder / "reference.safetensors").unlink()
    load_tower(tower, folder)
    place = tower_folder(folder)
    assert place.parent == tmp_path / "home/converted" and caplog.text.count("read as hf-roberta") == 1
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]
    (folder / "model.safetensors").touch()  # a change, for all that one knows
    assert tower_folder(folder) != place
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="lacks|may be"):
        tower_folder(folder)


def test_cards_name_what_there_is():
    every = cards()
    converters = {*releases(), *huggingface.SOURCES, ""}
    for card in every.values():
        assert card.title and card.converter in converters, card.name
        assert card.sources or card.page, f"{card.name}: where is it?"
        assert not card.tokenizer_of or every[card.tokenizer_of].tokenizer, card.name
        assert card.part != "model" or card.tokenizer_of, card.name
        for name, value in card.sha256.items():
            assert re.fullmatch("[0-9a-f]{64}", value) and name, card.name


def test_the_page_has_the_table_of_cards(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNIMO_HOME", str(tmp_path))
    rows = [line.rpartition(" | ")[0] for line in cards_table().splitlines()[2:]]
    page = (root / "docs/guides/weights.md").read_text(encoding="utf8")
    assert not [row for row in rows if row not in page]


@pytest.mark.parametrize("kind", ["..", "/absolute", "link", "large", "records", "behind", "cut"])
def test_an_archive_unpacks_inside_its_folder_or_not_at_all(kind: str, tmp_path: Path):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("top/word_embedding", {"..": "top/../../out", "/absolute": "/out"}.get(kind, "top/x")):
            member = tarfile.TarInfo(name)
            if kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            elif kind == "large":
                member.size = 100 << 30
            if kind == "records":
                member.type, member.size = tarfile.XHDTYPE, 2 << 20
            tar.fileobj.write(member.tobuf())
    if kind == "behind":
        archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(70 << 20)))
    if kind == "cut":
        archive.write_bytes(archive.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="a.tar.gz"):
        archives.unpack(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
