"""GLUE's files as distributed: columns by name, files without header, splits, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimo.data.readers.glue import FOLDERS, TASKS, GlueFile
from unimo.data.readers.open_glue import open_glue
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

MNLI_COLUMNS = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse "
MNLI_COLUMNS += "sentence2_parse sentence1 sentence2 label1 gold_label"


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf8")
    return path


def table(columns: str, *rows: dict[str, str]) -> list[str]:
    names = columns.split()
    return ["\t".join(names), *("\t".join(row.get(name, "x") for name in names) for row in rows)]


def read(folder: Path, split: str, dataset: str):
    return open_glue(CorpusConfig(str(folder)), split, DataConfig(), dataset)


def test_sst2_with_and_without_header(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "sentence\tlabel", "a fine film\t1", "", "dull \t0")
    write(tmp_path / "dev.tsv", "it drags\t0", 'a "great" one\t1')
    write(tmp_path / "test.tsv", "index\tsentence", "0\tuneasy mishmash")
    train, dev, test = (read(tmp_path, split, "sst2") for split in ("train", "val", "test"))
    rows = [(record.text, record.label, record.label_name) for record in train]
    assert rows == [("a fine film", 1, "positive"), ("dull", 0, "negative")]
    assert [record.sample_id for record in train] == ["train:2", "train:4"]
    assert [(record.text, record.label) for record in dev] == [("it drags", 0), ('a "great" one', 1)]
    assert [(record.text, record.label) for record in test] == [("uneasy mishmash", None)]


PAIRS = {
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t1\t2\t{0}\t{1}\t1", "duplicate"),
    "qnli": ("index\tquestion\tsentence\tlabel", "7\t{0}\t{1}\tnot_entailment", "not_entailment"),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t70\t71\t{0}\t{1}", "different"),
    "rte": ("index\tsentence1\tsentence2\tlabel", "7\t{0}\t{1}\tentailment", "entailment"),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "7\t{0}\t{1}\t1", "entailment"),
}


@pytest.mark.parametrize("dataset", PAIRS)
def test_pairs_of_sentences_keep_their_quotes_and_test_files_have_no_labels(
    tmp_path: Path, dataset: str
) -> None:
    header, row, label_name = PAIRS[dataset]
    texts = ('He said "no', 'it\'s "fine" , 5" wide')
    folder = tmp_path / FOLDERS[dataset][0]
    write(folder / "train.tsv", header, row.format(*texts))
    label = TASKS[dataset].label
    unlabelled = [name for name in header.split("\t") if name != label]
    values = [dict(zip(TASKS[dataset].texts, texts, strict=True)).get(name, "7") for name in unlabelled]
    write(folder / "test.tsv", "\t".join(unlabelled), "\t".join(values))
    (train,) = read(tmp_path, "train", dataset)
    assert (train.text, train.text_pair, train.label_name) == (*texts, label_name)
    assert TASKS[dataset].class_names[train.label] == label_name
    (test,) = read(tmp_path, "test", dataset)
    assert (test.text, test.text_pair, test.label) == (*texts, None)


def test_mrpc_as_its_authors_distribute_it(tmp_path: Path) -> None:
    content = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tone\ttwo\r\n"
    (tmp_path / "msr_paraphrase_train.txt").write_text(content, encoding="utf8", newline="")
    (record,) = read(tmp_path, "train", "mrpc")
    assert (record.text, record.text_pair, record.label_name) == ("one", "two", "equivalent")
    write(tmp_path / "train.tsv", "Quality\t#1 String\t#2 String", "0\tthree\tfour")  # made of it
    assert [record.text for record in read(tmp_path, "train", "mrpc")] == ["three"]


def test_cola_has_no_header_but_in_test(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "train.tsv", "gj04\t1\t\tFred sang.", "gj04\t0\t*\tSang fred the.")
    write(tmp_path / "CoLA" / "test.tsv", "index\tsentence", "0\tBill whistled.")
    rows = [(record.text, record.label, record.label_name) for record in read(tmp_path, "train", "cola")]
    assert rows == [("Fred sang.", 1, "acceptable"), ("Sang fred the.", 0, "unacceptable")]
    assert read(tmp_path, "test", "cola")[0].text == "Bill whistled."


def test_mnli_joins_matched_and_mismatched(tmp_path: Path) -> None:
    def row(label: str) -> dict[str, str]:
        return {"sentence1": f"first {label}", "sentence2": "second", "gold_label": label}

    write(tmp_path / "train.tsv", *table(MNLI_COLUMNS, row("neutral")))
    write(tmp_path / "dev_matched.tsv", *table(MNLI_COLUMNS, row("entailment"), row("contradiction")))
    write(tmp_path / "dev_mismatched.tsv", *table(MNLI_COLUMNS, row("neutral")))
    write(tmp_path / "test_matched.tsv", *table(MNLI_COLUMNS.replace(" gold_label", ""), row("?")))
    rows = [(record.label, record.question_type) for record in read(tmp_path, "val", "mnli")]
    assert rows == [(2, "matched"), (0, "matched"), (1, "mismatched")]
    record = read(tmp_path, "val_mismatched", "mnli")[0]
    assert (record.text, record.text_pair, record.label_name) == ("first neutral", "second", "neutral")
    assert [record.label for record in read(tmp_path, "test", "mnli")] == [None]
    assert len(read(tmp_path, "train+val", "mnli")) == 4


def test_a_line_break_in_a_question_of_qqp_breaks_two_lines_and_no_other(tmp_path: Path) -> None:
    header, row, _ = PAIRS["qqp"]
    whole = row.format("How are you?", "What is it?")
    write(tmp_path / "train.tsv", header, whole, "8\t3\t4\tWhat is", "this?\tWhy?\t0", "9\t5\t6\tHow?", whole)
    data = read(tmp_path, "train", "qqp")
    assert len(data) == 5 and [data[place].text_pair for place in (0, 4)] == ["What is it?"] * 2
    for place, found in ((1, 4), (2, 3), (3, 4)):
        with pytest.raises(RecordError, match=f"line {place + 2}: {found} columns, and column 6"):
            data[place]


NUMBERED = {
    "cola": ("test.tsv", "index\tsentence", "{0}\ta"),
    "sst2": ("test.tsv", "index\tsentence", "{0}\ta"),
    "mrpc": ("test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String", "{0}\t70\t71\ta\tb"),
    "stsb": ("test.tsv", "index\tgenre\tsentence1\tsentence2", "{0}\tnews\ta\tb"),
    "qqp": ("test.tsv", "id\tquestion1\tquestion2", "{0}\ta\tb"),
    "mnli": ("test_mismatched.tsv", "index\tpromptID\tsentence1\tsentence2", "{0}\t9\ta\tb"),
    "qnli": ("test.tsv", "index\tquestion\tsentence", "{0}\ta\tb"),
    "rte": ("test.tsv", "index\tsentence1\tsentence2", "{0}\ta\tb"),
    "wnli": ("test.tsv", "index\tsentence1\tsentence2", "{0}\ta\tb"),
    "ax": ("diagnostic.tsv", "index\tsentence1\tsentence2", "{0}\ta\tb"),
}


@pytest.mark.parametrize("dataset", NUMBERED)
def test_samples_keep_the_numbers_that_the_server_wants_back(tmp_path: Path, dataset: str) -> None:
    name, header, row = NUMBERED[dataset]
    write(tmp_path / FOLDERS[dataset][0] / name, header, row.format(4), "", row.format(2), row.format("x"))
    records = list(read(tmp_path, "test", dataset))
    assert [record.question_id for record in records] == [4, 2, 2]  # the last by its place
    assert {(record.label, record.score) for record in records} == {(None, None)}


def test_the_diagnostic_set_lies_in_its_own_folder_or_in_that_of_mnli(tmp_path: Path) -> None:
    for folder, name in (("MNLI", "diagnostic.tsv"), ("AX", "AX.tsv"), ("diagnostic", "diagnostic.tsv")):
        write(tmp_path / folder / name, "index\tsentence1\tsentence2", f"0\tfrom {folder}\tb")
        assert read(tmp_path, "test", "ax")[0].text == f"from {folder}"
    assert read(tmp_path / "MNLI", "test", "ax")[0].text == "from MNLI"
    write(tmp_path / "MNLI" / "train.tsv", "sentence1\tsentence2\tgold_label", "a\tb\tneutral")
    assert len(read(tmp_path, "train", "mnli")) == 1
    with pytest.raises(DataError, match="no split 'train' of GLUE files; found: diagnostic.tsv"):
        read(tmp_path, "train", "ax")


def test_stsb_scores(tmp_path: Path) -> None:
    columns = "index genre sentence1 sentence2 score"
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in ("0.000", "3.75", "5")]
    write(tmp_path / "dev.tsv", *table(columns, *rows))
    records = list(read(tmp_path, "val", "stsb"))
    assert [record.score for record in records] == [0.0, 3.75, 5.0]
    assert {record.label for record in records} == {None}


@pytest.mark.parametrize(
    ("dataset", "rows", "message"),
    [
        ("sst2", ["sentence\tpolarity", "good\t1"], r"line 1: no column label; found: sentence, polarity"),
        ("mnli", ["sentence1\tlabel", "a\t1"], r"line 1: no column sentence2 and no column gold_label"),
        ("sst2", ["sentence\tlabel", "good\t1", "bad"], r"line 3: 1 columns, and column 2 \(label\)"),
        ("sst2", ["good"], r"line 1: 1 columns, and column 2 \(label\) is missing"),
        ("cola", ["gj04\t1\tFred sang."], r"line 1: 3 columns, and column 4 \(sentence\) is missing"),
        ("sst2", ["good\t1", "bad\t2"], r"line 2: unknown label '2'; expected 0, 1"),
        (
            "mnli",
            ["sentence1\tsentence2\tgold_label", "a\tb\t-"],
            r"line 2: unknown label '-'; expected contra",
        ),
        (
            "stsb",
            ["sentence1\tsentence2\tscore", "a\tb\t5.5"],
            r"line 2: unknown score '5.5'; expected 0 to 5",
        ),
        ("stsb", ["sentence1\tsentence2\tscore", "a\tb\tnan"], r"line 2: unknown score 'nan'"),
        ("sst2", ["sentence\tlabel"], r"has no samples"),
        ("mnli", ["", " ", "sentence1\tsentence2", "a\tb"], r"line 3: no column gold_label"),
        ("mnli", ["", "", "\t"], r"has no samples"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(
    tmp_path: Path, dataset: str, rows: list[str], message: str
) -> None:
    path = write(tmp_path / "train.tsv", *rows)
    with pytest.raises(DataError, match=message) as caught:
        list(GlueFile(path, TASKS[dataset], "mine"))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dataset", ["sst2", "mnli"])
def test_empty_lines_before_the_header(tmp_path: Path, dataset: str) -> None:
    texts = {
        "sst2": ("sentence\tlabel", "a\t1"),
        "mnli": ("sentence1\tsentence2\tgold_label", "a\tb\tneutral"),
    }
    data = GlueFile(write(tmp_path / "train.tsv", "", " ", *texts[dataset], ""), TASKS[dataset], "mine")
    assert [record.text for record in data] == ["a"] and data[0].label == 1


def test_missing_split_folder_and_text(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", " \t1")
    with pytest.raises(DataError, match="no split 'train' of GLUE files; found: dev.tsv"):
        read(tmp_path, "train", "sst2")
    with pytest.raises(DataError, match="no folder .*nowhere"):
        read(tmp_path / "nowhere", "train", "sst2")
    with pytest.raises(RecordError, match="dev.tsv, line 1: the text is empty"):
        read(tmp_path, "val", "sst2")[0]


def test_shared_sst2(shared: Path) -> None:
    folder = shared / "data" / "glue"
    if not (folder / "SST-2").is_dir():
        pytest.skip("no SST-2")
    dev = read(folder, "val", "sst2")
    assert len(dev) == 872 and sum(record.label for record in dev) == 444
    assert dev[0].text == "one long string of cliches"


@pytest.mark.parametrize(
    ("task", "header", "fields"),
    [
        (
            "mnli",
            "index\tsentence1\tsentence2\tlabel1\tgold_label\n",
            ["0", "a", "b", "neutral", "entailment"],
        ),
        ("stsb", "index\tsentence1\tsentence2\tscore\n", ["0", "a", "b", "4.5"]),
        ("sst2", "sentence\tlabel\n", ["a", "1"]),
        ("sst2", "", ["a", "1"]),
        ("cola", "", ["gj04", "1", "", "a"]),
    ],
)
def test_a_line_with_a_tab_more_than_the_header_is_broken(tmp_path, task, header, fields):
    path, whole = tmp_path / "train.tsv", "\t".join(fields) + "\n"
    path.write_text(header + whole)
    assert GlueFile(path, TASKS[task], "x")[0].text == "a"
    for place in range(len(fields) + 1):
        moved = "\t".join([*fields[:place], "more", *fields[place:]])
        path.write_text(header + whole + moved)
        number = 3 if header else 2
        data = GlueFile(path, TASKS[task], "x")
        with pytest.raises(
            RecordError, match=f"line {number}: {len(fields) + 1} columns, expected {len(fields)}"
        ):
            data[1]
        assert len(data) == 2 and data[0].text == "a"


@pytest.mark.parametrize(
    ("header", "shown"),
    [(" sentence\tlabel", "' sentence', label"), ("sen\u200btence\tlabel", r"'sen\\u200btence', label")],
)
def test_what_cannot_be_seen_in_a_header_is_shown(tmp_path, header, shown):
    (tmp_path / "train.tsv").write_text(f"{header}\ngood\t1\n", encoding="utf8")
    with pytest.raises(DataError, match=f"no column sentence; found: {shown}; expected these names"):
        GlueFile(tmp_path / "train.tsv", TASKS["sst2"], "x")
