"""Ids of known texts in each family, special tokens, and messages about missing files."""

import json
import subprocess
import sys

import pytest

from unimo.data.tokenizers import build_word_tokenizer, load_tokenizer
from unimo.errors import DataError, RecordError


@pytest.fixture(scope="module")
def unimo_files(shared_tokenizer):
    return load_tokenizer(shared_tokenizer)


@pytest.fixture(scope="module")
def shared_tokenizer(shared):
    folder = shared / "data" / "tokenizer" / "unimo_en"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def test_word_ids():
    tokenizer = build_word_tokenizer(["Circle", "red", "a", "."])
    assert tokenizer.vocab_size == 9
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (3, 8)
    assert tokenizer.special_ids == {0, 1, 2, 3, 8}
    assert tokenizer.encode("A RED circle, huge.", 20) == [0, 5, 7, 6, 3, 3, 4, 2]
    assert tokenizer.decode([0, 5, 7, 6, 2, 1, 1]) == "a red circle"


def test_special_names_in_a_text_are_text():
    tokenizer = build_word_tokenizer(["mask", "<", ">", "s"])
    assert not set(tokenizer.encode("<mask> <s>", 20)[1:-1]) & tokenizer.special_ids


def test_cut_keeps_both_ends():
    tokenizer = build_word_tokenizer(["a", "b"])
    assert tokenizer.encode("a b a b a b", 5) == [0, 4, 5, 4, 2]


def test_unimo_ids(unimo_files):
    assert unimo_files.vocab_size == 50265
    assert unimo_files.mask_token_id == 50264
    assert unimo_files.encode("A man rides a horse.", 50) == [0, 250, 313, 9668, 10, 5253, 4, 2]
    assert unimo_files.encode("a man", 50)[1] == 102
    assert unimo_files.encode(" a man", 50)[1] == 10
    assert unimo_files.special_ids == {0, 1, 2, 3, 50261, 50262, 50263, 50264}
    assert not set(unimo_files.encode("[MASK] <mask> madeupword0000", 50)[1:-1]) & unimo_files.special_ids


@pytest.mark.parametrize("text", ["A café, naïve – 12 dogs…", "tabs\tand\nlines", "日本 🐕"])
def test_unimo_round_trip(unimo_files, text):
    assert unimo_files.decode(unimo_files.encode(text, 100)) == text


def test_prefix_space(shared_tokenizer):
    assert load_tokenizer(shared_tokenizer, add_prefix_space=True).encode("a man", 9)[1] == 10


def test_words_of_tokens(unimo_files):
    ids, words = unimo_files.encode_words("a unicyclist rides", 50)
    assert words[0] == words[-1] == -1
    assert words[1:-1] == sorted(words[1:-1])
    assert len(set(words[1:-1])) == 3 < len(ids) - 2
    assert unimo_files.written_words("a unicyclist rides", 50) == (words, ["a", "unicyclist", "rides"])


def test_save_and_load(unimo_files, tmp_path):
    unimo_files.save(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "Two people [MASK] on a zebra-striped carpet."
    assert again.encode(text, 50) == unimo_files.encode(text, 50)
    assert again.special_ids == unimo_files.special_ids


def test_roberta_files(unimo_files, shared_tokenizer, tmp_path):
    vocabulary = unimo_files.backend.get_vocab()
    names = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
    vocabulary = {names.get(name, name): index for name, index in vocabulary.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_bytes((shared_tokenizer / "unimo_en.vocab.bpe").read_bytes())
    roberta = load_tokenizer(tmp_path)
    text = "<s> The dog's 3 balls <mask>"
    assert roberta.encode(text, 50) == unimo_files.encode(text, 50)
    assert roberta.mask_token_id == 50264


def test_tokenizer_json_of_others(tmp_path):
    """Added tokens and a post-processor are taken out: special names stay text, specials come once."""
    own = json.loads(build_word_tokenizer(["mask", "dog"]).backend.to_str())
    own["added_tokens"] = [
        {"id": 6, "content": "<mask>", "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
    ]
    del own["model"]["vocab"]["<mask>"]
    own["post_processor"] = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(own))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.mask_token_id == 6
    assert tokenizer.encode("dog <mask>", 9) == [0, 4, 3, 5, 3, 2]


def test_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="no such folder.*tokenizer.json.*merges.txt.*encoder.json"):
        load_tokenizer(tmp_path / "nowhere")


def test_folder_with_other_files_lists_them(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match="notes.md"):
        load_tokenizer(tmp_path)


def test_missing_part_is_named(tmp_path):
    (tmp_path / "unimo_en.encoder.json").write_text('{"a": 0}')
    with pytest.raises(DataError, match="unimo_en.vocab.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"vocab": {"a": 0}, "type": "WordLevel"}}'])
def test_damaged_tokenizer_json(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="tokenizer.json"):
        load_tokenizer(tmp_path)


def test_scenes_has_no_unknown_words():
    tokenizer = load_tokenizer("scenes")
    from unimo.data.scenes.dataset import ScenesDataset
    from unimo.settings import ScenesConfig

    for kind in ("pairs", "vqa", "entailment"):
        dataset = ScenesDataset(kind, "val", ScenesConfig(val_images=5))
        for index in range(len(dataset)):
            assert tokenizer.unk_token_id not in tokenizer.encode(dataset[index].text, 50)


def test_data_does_not_import_paddle():
    code = (
        "import sys, unimo.data.loading.task_data, unimo.data.tokenizers, unimo.data.images.transforms\n"
        "assert not {'paddle', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("unknown", ["<other>", "", "<unk> "])
def test_unknown_words_without_a_token(tmp_path, unknown):
    """The library would notice it at the first text with an unknown word."""
    build_word_tokenizer(["a"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["unk_token"] = unknown
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="cannot encode unknown words"):
        load_tokenizer(tmp_path)


def test_a_pattern_that_gives_up_on_a_text_breaks_that_record(tmp_path):
    build_word_tokenizer(["a", "b"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    pattern = {"Regex": "(a+)+$"}
    content["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode("a", 12)) == 3
    with pytest.raises(RecordError, match="the tokenizer cannot encode 'aaa"):
        tokenizer.encode("a" * 40 + "b", 12)


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize(
    ("contents", "growth"),
    [(["a" * 1000] * 6, "1,000,000,000,000,000,000"), (["a" * 17], "17"), (["aaa"] * 3, "27")],
)
def test_replacements_do_not_make_a_text_endless(tmp_path, part, contents, growth):
    build_word_tokenizer(["a", "b"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    steps = [{"type": "Replace", "pattern": {"String": "a"}, "content": text} for text in contents]

    def load(steps):
        content[part] = {"type": "Sequence", f"{part}s": steps}
        path.write_text(json.dumps(content))
        return load_tokenizer(tmp_path)

    assert load([{"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b" * 16}])
    with pytest.raises(DataError, match=f"its {part} may make a text {growth} times as long"):
        load(steps)


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(((("},
                "behavior": "Isolated",
                "invert": False,
            }
        },
    ],
)
def test_parts_that_the_library_fails_on_are_one_error(tmp_path, part):
    build_word_tokenizer(["a", "b"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json: "):
        load_tokenizer(tmp_path)
