"""Broken records of every preparation: counted and skipped, never text; a job that keeps nothing fails."""

import json

import pytest
from picture_files import write_json, write_pictures

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.readers.open import open_answers, open_corpus
from unimo.errors import ConfigError, DataError
from unimo.settings import CorpusConfig, DataConfig

NAN = float("nan")
NO_TEXTS = [None, NAN, 5, True, ["x"], {"raw": "x"}, "half \ud83d", "a\0b", "\u200b"]
BAD_PATHS = [None, 5, NAN, ["0.jpg"], "", "a\0.jpg", "\ud83d.jpg"]


def karpathy(folder, texts, rate, **first):
    """An image for each text; keyword arguments replace parts of the first."""
    images = [
        {"filename": f"{n}.jpg", "split": "train", "sentences": [{"raw": t}]} for n, t in enumerate(texts)
    ]
    images[0] |= first
    source = write_json(folder / "dataset.json", {"dataset": "own", "images": images})
    return prepare_karpathy(source, folder / "images", folder / "out", max_missing_rate=rate)


def snli_ve(folder, texts, rate, key="sentence2", **first):
    line = {"sentence1": "p", "sentence2": "h", "gold_label": "neutral"}
    lines = [line | {"Flickr30K_ID": str(number), key: text} for number, text in enumerate(texts)]
    lines[0] |= first
    (folder / "snli_ve_train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return prepare_snli_ve(folder, folder / "images", folder / "out", rate)


def premises(folder, texts, rate):
    return snli_ve(folder, texts, rate, "sentence1")


def vqa(folder, texts, rate, answers=None, min_count=1, **first):
    """Questions with ten times `yes`, but the first."""
    questions = [{"question_id": n, "image_id": n, "question": text} for n, text in enumerate(texts)]
    questions[0] |= first
    given = [{"answer": "yes"}] * 10
    entries = [
        {"question_id": n, "multiple_choice_answer": "yes", "answers": given} for n in range(len(texts))
    ]
    entries[0] |= answers or {}
    write_json(folder / "train2014_questions.json", {"questions": questions})
    write_json(folder / "train2014_annotations.json", {"annotations": entries})
    return prepare_vqa(folder, folder / "images", folder / "out", min_count=min_count, max_missing_rate=rate)


def own(folder, texts, rate, kind="pairs", **first):
    key, extra = {
        "pairs": ("text", {}),
        "vqa": ("question", {"answer": "yes"}),
        "entailment": ("text", {"label": "neutral"}),
    }[kind]
    items = [{"image": f"images/{number}.jpg", key: text, **extra} for number, text in enumerate(texts)]
    items[0] |= first
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, items)))
    return prepare_jsonl(folder / "train.jsonl", folder / "out", kind, max_missing_rate=rate)


def own_vqa(folder, texts, rate, **first):
    return own(folder, texts, rate, "vqa", **first)


def own_entailment(folder, texts, rate, **first):
    return own(folder, texts, rate, "entailment", **first)


JOBS = {
    karpathy: "pairs",
    snli_ve: "entailment",
    premises: "entailment",
    vqa: "vqa",
    own: "pairs",
    own_vqa: "vqa",
    own_entailment: "entailment",
}
GOOD = [f"text {number}" for number in range(1, 10)]


@pytest.fixture
def folder(tmp_path):
    names = [f"{number}.jpg" for number in range(10)]
    write_pictures(tmp_path / "images", names + [f"COCO_train2014_{number:012d}.jpg" for number in range(10)])
    return tmp_path


def kept(folder, kind):
    return open_corpus(CorpusConfig(str(folder / "out")), "train", kind, DataConfig())


def check_skipped(folder, job, summary, caplog):
    """Check that the first of ten records, and no other, was left out, counted and logged."""
    records = list(kept(folder, JOBS[job]))
    assert [record.text for record in records] == (["h"] * 9 if job is premises else GOOD)
    assert summary["broken"] >= 1 and summary["examples"]
    assert caplog.text.count("skipped ") == 1


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("value", NO_TEXTS)
def test_a_value_that_is_no_text(folder, job, value, caplog):
    check_skipped(folder, job, job(folder, [value, *GOOD], 0.5), caplog)
    with pytest.raises(DataError, match="broken, more than --max-missing-rate 0.01 allows; the first: "):
        job(folder, [value, *GOOD], 0.01)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("value", [*NO_TEXTS, "", " \n"])
def test_nothing_is_left(folder, job, value):
    """Whatever share may be broken: an empty table would only fail in training."""
    with pytest.raises(DataError, match="nothing .*is left|none of|no answer"):
        job(folder, [value, value], 1.0)
    assert not list(folder.glob("out/*.arrow"))


SHAPES = [
    *((karpathy, {"filename": value}) for value in BAD_PATHS),
    *((karpathy, {"filepath": value}) for value in (5, ["x"], "a\0")),
    *((karpathy, {"sentences": value}) for value in (None, "x", 5, {"raw": "x"}, [None], [5], [["x"]], [{}])),
    *((karpathy, {"sentences": [{"tokens": ["a", "dog"]}]}) for _ in range(1)),
    *((karpathy, {"split": value}) for value in (None, 5, ["train"], "other")),
    *((snli_ve, {"Flickr30K_ID": value}) for value in (None, NAN, ["0"], "a\0", "\ud83d", "")),
    *((snli_ve, {"gold_label": value}) for value in ("Neutral", "", None, 1, ["neutral"], "neutral ", "--")),
    *((vqa, {"image_id": value}) for value in (None, NAN, "0", "COCO_train2014_0.jpg", -1, [0], True)),
    *((vqa, {"question_id": value}) for value in (None, NAN, "x", [0], 99)),
    *(
        (vqa, {"answers": {"answers": value}})
        for value in (None, [], "yes", ["yes"], [None], [{"answer": None}], [{}], [{"answer": ["yes"]}])
    ),
    *((vqa, {"answers": {"multiple_choice_answer": value}}) for value in (None, 5, ["yes"], "half \ud83d")),
    *((vqa, {"answers": {"question_id": value}}) for value in (None, "x", 1)),
    *((own, {"image": value}) for value in BAD_PATHS),
    *((own, {"image": value}) for value in ("images", "images/0.jpg/x", "train.jsonl", "n" * 300)),
    *((own, {"image_id": value}) for value in (NAN, ["x"], 0.5, True, "a\0")),
    *((own_vqa, {"answer": value}) for value in (None, NAN, 5, "", [], {}, [None], ["yes", ""], ["yes", 5])),
    *((own_vqa, {"answer": {"yes": value}}) for value in (0, -1, 1.01, 3, NAN, None, "1", True, [1])),
    *((own_vqa, {"answer": {name: 1.0}}) for name in ("", " ", "a\0", "\ud83d")),
    *((own_vqa, {"answer": {"yes": 1.0, " yes": 0.3}}) for _ in range(1)),
    *((own_vqa, {"question_id": value}) for value in (NAN, ["x"], True, "a\0")),
    *(
        (own_entailment, {"label": value})
        for value in ("Neutral", "-", 3, -1, 1.0, True, ["neutral"], NAN, None)
    ),
]


@pytest.mark.parametrize(("job", "change"), SHAPES)
def test_a_record_of_another_shape(folder, job, change, caplog):
    check_skipped(folder, job, job(folder, ["text 0", *GOOD], 0.5, **change), caplog)


def test_captions_that_are_empty_strings_are_no_fault(folder):
    """Flickr30k and COCO have some."""
    sentences = [{"raw": ""}, {"raw": "text 0"}, {"raw": " \n"}]
    summary = karpathy(folder, ["text 0", *GOOD], 0.0, sentences=sentences)
    assert [record.text for record in kept(folder, "pairs")] == ["text 0", *GOOD]
    assert summary["captions_empty"] == 2 and summary["broken"] == 0


def test_captions_as_plain_strings(folder):
    karpathy(folder, ["text 0", *GOOD], 0.0, sentences=["text 0"])
    assert [record.text for record in kept(folder, "pairs")] == ["text 0", *GOOD]


def test_only_lines_without_an_agreed_label(folder):
    assert snli_ve(folder, ["x", *GOOD], 0.0, gold_label="-")["splits"]["train"]["without_label"] == 1
    with pytest.raises(DataError, match=r"nothing is left to write to snli_train.arrow: .*\(-, 1 of train\)"):
        snli_ve(folder, ["x"], 0.0, gold_label="-")


def test_questions_without_a_class(folder):
    """A number of another table, or a majority answer that no annotator gave."""
    rare = {"multiple_choice_answer": "odd", "answers": [{"answer": "odd"}] * 10}
    vqa(folder, ["text 0", *GOOD], 0.0, rare, min_count=2)
    assert [record.text for record in kept(folder, "vqa")] == GOOD
    with pytest.raises(DataError, match=r"nothing is left to write to vqav2_train.arrow: .*--min-count"):
        vqa(folder, ["text 0"], 0.0, {"multiple_choice_answer": "yes", "answers": [{"answer": "odd"}] * 10})


def test_an_answer_of_articles_is_a_class_without_a_name(folder):
    """It keeps its number, as the official list of 3,129 needs, and no question has it."""
    articles = {"multiple_choice_answer": "the", "answers": [{"answer": "the"}] * 5 + [{"answer": "yes"}] * 5}
    vqa(folder, ["text 0", *GOOD], 0.0, articles)
    assert json.loads((folder / "out" / "answers.json").read_text()) == ["<answer 0>", "yes"]
    assert kept(folder, "vqa")[0].answer_scores == {"yes": 1.0}
    assert open_answers(CorpusConfig(str(folder / "out")), DataConfig()) == ["<answer 0>", "yes"]


@pytest.mark.parametrize("name", ["n" * 300, "0.jpg/x", "none.jpg"])
def test_images_that_are_not_there(folder, name):
    summary = karpathy(folder, ["text 0", *GOOD], 0.5, filename=name)
    assert summary["images_missing"] == 1 and len(kept(folder, "pairs")) == 9
    assert snli_ve(folder, ["text 0", *GOOD], 0.5, Flickr30K_ID=name)["images_missing"] == 1


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("rate", [-0.1, 1.1, NAN, float("inf")])
def test_shares_that_are_none(folder, job, rate):
    with pytest.raises(ConfigError, match="--max-missing-rate"):
        job(folder, GOOD, rate)
