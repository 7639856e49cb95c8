"""Whatever is no text spoils its own sample, in every reader: it is not read as text nor ends the others."""

import io
import json
import tarfile

import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.generation import CoqaFile, JsonlFile, LinePairs, SquadQuestions, TsvFile
from unimo.data.readers.glue import TASKS, GlueFile
from unimo.data.readers.jsonl import JsonlDataset, TextLinesDataset
from unimo.data.readers.open import open_corpus
from unimo.data.readers.tar import TarDataset
from unimo.errors import RecordError
from unimo.settings import CorpusConfig, DataConfig

NAN = float("nan")
STRINGS = ["\u200b", "\ufeff\u2060", "a\0b"]
"""Strings in which a person sees nothing, or that are data of another kind."""
VALUES = [None, NAN, 5, 0.5, True, [["x"]], {"raw": "x"}, "", " \t", "half \ud83d", *STRINGS]


def sample(kind, value):
    extra = {"vqa": {"answer": "yes"}, "entailment": {"label": 1}}.get(kind, {})
    return {"question" if kind == "vqa" else "text": value} | extra


def jsonl(folder, kind, values):
    write_pictures(folder, ["a.jpg"])
    lines = [json.dumps({"image": "a.jpg"} | sample(kind, value)) for value in values]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return JsonlDataset(folder / "train.jsonl", kind)


def texts_list(folder, kind, values):
    write_pictures(folder, ["a.jpg"])
    (folder / "train.jsonl").write_text(json.dumps({"image": "a.jpg", "texts": values}))
    return JsonlDataset(folder / "train.jsonl", kind)


def tar(folder, kind, values):
    content = json.dumps([sample(kind, value) for value in values]).encode()
    with tarfile.open(folder / "train.tar", "w") as file:
        for name, data in (("0.jpg", jpeg(0)), ("0.json", content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return TarDataset(folder / "train.tar", kind)


def written(folder, kind, values):
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"source": v, "target": "t"}) for v in values))
    return JsonlFile(folder / "train.jsonl", "x")


def targets(folder, kind, values):
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"source": "s", "target": v}) for v in values))
    return JsonlFile(folder / "train.jsonl", "x")


def knowledge(folder, kind, values):
    lines = [{"source": "s", "target": "t", "knowledge": "k" if v is None else v} for v in values]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return JsonlFile(folder / "train.jsonl", "x")


def coqa(folder, kind, values, key="answers"):
    stories = []
    for value in values:
        parts = {name: [{"input_text": "q", "turn_id": 1}] for name in ("questions", "answers")}
        stories.append({"story": "s", **parts} | {key: [{"input_text": value, "turn_id": 1}]})
    (folder / "coqa.json").write_text(json.dumps({"data": stories}))
    return CoqaFile(folder / "coqa.json", "x")


def coqa_questions(folder, kind, values):
    return coqa(folder, kind, values, "questions")


def coqa_annotators(folder, kind, values):
    turn = {"questions": [{"input_text": "q"}], "answers": [{"input_text": "a"}], "story": "s"}
    stories = [turn | {"additional_answers": {"0": [{"input_text": value}]}} for value in values]
    (folder / "coqa.json").write_text(json.dumps({"data": stories}))
    return CoqaFile(folder / "coqa.json", "x")


def squad(folder, kind, values, key="question"):
    qas = [{"question": "q", "answers": [{"text": "a"}]} | {key: value} for value in values]
    paragraphs = [{"context": "c", "qas": qas}]
    (folder / "train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return SquadQuestions(folder / "train.json", "x")


def squad_answers(folder, kind, values):
    return squad(
        folder,
        kind,
        [[{"text": value}] if value != "good" else [{"text": "a"}] for value in values],
        "answers",
    )


ANY = [
    (jsonl, "pairs"), (jsonl, "vqa"), (jsonl, "entailment"), (jsonl, "texts"), (texts_list, "pairs"),
    (tar, "pairs"), (tar, "vqa"), (tar, "entailment"), (tar, "texts"), (written, ""), (targets, ""),
    (coqa, ""), (coqa_questions, ""), (coqa_annotators, ""), (squad, ""), (squad_answers, ""),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "kind"), ANY)
def test_readers_of_json(tmp_path, reader, kind):
    data = reader(tmp_path, kind, ["good", *VALUES, "good"])
    assert len(data) == len(VALUES) + 2
    for index in range(len(data)):
        if index in (0, len(data) - 1):
            data[index]
            continue
        with pytest.raises(RecordError, match="text|list of objects"):
            data[index]


def test_background_of_a_dialog(tmp_path):
    values = [value for value in VALUES if value is not None]
    data = knowledge(tmp_path, "", [None, *values])
    assert data[0].knowledge == "k"
    for index in range(1, len(data)):
        with pytest.raises(RecordError, match="knowledge"):
            data[index]


def lines(folder, values):
    (folder / "train.txt").write_text("\n".join(values))
    return TextLinesDataset(folder / "train.txt")


def pairs_of_lines(folder, values):
    (folder / "a").write_text("\n".join(values))
    (folder / "b").write_text("\n".join("t" for _ in values))
    return LinePairs((folder / "a", folder / "b"), "x")


def tsv(folder, values, header="src\ttgt"):
    (folder / "a.tsv").write_text("\n".join([header, *(f"{value}\tt" for value in values)]))
    return TsvFile(folder / "a.tsv", "x")


def tsv_knowledge(folder, values):
    (folder / "a.tsv").write_text("\n".join(["src\tknowledge\ttgt", *(f"s\t{v}\tt" for v in values)]))
    return TsvFile(folder / "a.tsv", "x")


def tsv_turns(folder, values):
    (folder / "a.tsv").write_text("\n".join(["src\ttgt", *(f"s [SEP] {v}\tt" for v in values)]))
    return TsvFile(folder / "a.tsv", "x", splits_turns=True)


def glue(folder, values):
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *(f"{value}\t1" for value in values)]))
    return GlueFile(folder / "train.tsv", TASKS["sst2"], "x")


@pytest.mark.parametrize("reader", [lines, pairs_of_lines, tsv, tsv_knowledge, tsv_turns, glue])
def test_readers_of_lines(tmp_path, reader):
    data = reader(tmp_path, ["good", *STRINGS, "good"])
    assert len(data) == len(STRINGS) + 2
    for index in range(len(data)):
        if index in (0, len(data) - 1):
            data[index]
            continue
        with pytest.raises(RecordError, match="text"):
            data[index]


def arrow(folder, kind, leaves):
    """A table whose rows have one text each; leaves of one type."""
    rows = len(leaves)
    column, extra = {
        "pairs": ("caption", {}),
        "texts": ("caption", {}),
        "vqa": ("questions", {}),
        "entailment": ("sentences", {"labels": [[1]] * rows}),
    }[kind]
    texts = pa.array(
        [[[leaf, leaf]] for leaf in leaves] if kind == "entailment" else [[leaf] for leaf in leaves]
    )
    table = pa.table({"image": [jpeg(0)] * rows, column: texts, **extra})
    with pa.OSFile(str(folder / "train.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return ArrowDataset(folder / "train.arrow", kind)


@pytest.mark.parametrize("kind", ["pairs", "texts", "vqa", "entailment"])
@pytest.mark.parametrize(
    "leaves",
    [[None, "", " \n", *STRINGS], [5, 0], [NAN, 0.5], [True], [["x"], []], [{"raw": "x"}], [None], [b"x"]],
)
def test_arrow_tables(tmp_path, kind, leaves):
    data = arrow(tmp_path, kind, leaves)
    assert len(data) == len(leaves)
    for index in range(len(data)):
        with pytest.raises(RecordError, match="text|premise"):
            data[index]


IDS = [NAN, 0.5, True, ["x"], {"a": 1}, "", "a\0", "\ud83d"]


@pytest.mark.parametrize("key", ["image_id", "question_id", "question_type"])
@pytest.mark.parametrize("value", IDS)
def test_ids_of_jsonl(tmp_path, key, value):
    if key == "question_type" and not value:
        pytest.skip("as if there were none")
    write_pictures(tmp_path, ["a.jpg"])
    item = {"image": "a.jpg", "question": "q", "answer": "yes"}
    content = (item, item | {key: value}, item | {key: None}, item | {key: "x"})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, content)))
    data = JsonlDataset(tmp_path / "train.jsonl", "vqa")
    with pytest.raises(RecordError, match="line 2"):
        data[1]
    assert getattr(data[2], key) not in ("None", None) and getattr(data[3], key) == "x"
    assert data[2].image_id == data[0].image_id


@pytest.mark.parametrize("value", ["a\0.jpg", "\ud83d.jpg", "", None, 5, NAN, ["a.jpg"]])
@pytest.mark.parametrize("split", ["train", ""])
def test_paths_of_jsonl(tmp_path, value, split):
    """Also where images are dealt out to splits by the hash of their names."""
    write_pictures(tmp_path, [f"{number}.jpg" for number in range(9)])
    items = [{"image": value, "text": "bad"}, *({"image": f"{n}.jpg", "text": "t"} for n in range(9))]
    (tmp_path / f"{split or 'own'}.jsonl").write_text("\n".join(map(json.dumps, items)))
    data = open_corpus(CorpusConfig(str(tmp_path)), "train", "pairs", DataConfig())
    for read in (data.__getitem__, data.image_source):
        with pytest.raises(RecordError, match="line 1"):
            read(0)
    assert {data[index].text for index in range(1, len(data))} == {"t"}


def test_names_that_are_not_utf8_are_dealt_out_too(tmp_path):
    names = [f"{number}.jpg" for number in range(3)] + ["caf\udce9.jpg"]
    write_pictures(tmp_path, names)
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps({"image": n, "text": "t"}) for n in names))
    parts = [
        open_corpus(CorpusConfig(str(tmp_path)), word, "pairs", DataConfig())
        for word in ("train", "val", "test")
    ]
    assert sorted(record.image_id for part in parts for record in part) == sorted(names)
