"""The name map of the released UNIMO: every name of the release, tasks, and folders that are not whole."""

import numpy as np
import paddle
import pytest
from released_folder import listed_names
from released_unimo import FEATURE, HIDDEN, POSITIONS, WIDTH, random_release

import unimo
from unimo.config import merge_into, to_plain
from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo.convert import LEFT_OUT, REQUIRED, from_release
from unimo.registry import task_class, task_config
from unimo.weights.paddle_folder import NOT_WEIGHTS

VOCABULARY = 40
SYMBOLS = {"H": 768, "V": 50265, "P": 514, "I": 2048, "R": 3, "U": 16, "num_labels": 3, "beam_size": 5}
UNTIED = "mask_lm_out_fc.w_0"
DIALOGUE = ("role_embedding", "turn_embedding")


class Recorder(dict):
    """Remembers what was read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


@pytest.fixture(scope="module")
def official(shared):
    found = listed_names(shared, "unimo_base", SYMBOLS)
    assert len(found) == 228
    return found


def weights(official, classes):
    """Return the tensors that reading a folder needs, with the text classifier of one data set."""
    others = {f"cls_out_{n}_{part}" for n in {1, 2, 3} - {classes} for part in "wb"}
    return Recorder((k, v) for k, v in official.items() if k not in others and not NOT_WEIGHTS.search(k))


def test_every_name_is_of_some_task(official):
    used = set()
    for task in REQUIRED:
        for classes in (1, 2, 3) if task == "text_classification" else (3,):
            tensors = weights(official, classes)
            done = from_release(tensors, task=task)
            assert done.absent == () and done.task["name"] == task
            used |= tensors.read
            left = set(tensors) - tensors.read
            assert all(name.startswith(tuple(LEFT_OUT)) for name in left)
    helpers = {name for name in official if NOT_WEIGHTS.search(name)}
    assert used | helpers == set(official) and len(helpers) == 2


@pytest.mark.parametrize("task", REQUIRED)
def test_a_base_folder_fills_every_parameter_of_the_task(official, task):
    """But for what pre-training of the release did not leave: heads of masked regions."""
    done = from_release(weights(official, 3), task=task)
    plain = to_plain(done.config)
    assert plain["pair_feature"] == ("sum" if task == "entailment" else "product")
    assert (plain["role_types"], plain["turn_types"], plain["regions"]["feature_size"]) == (3, 16, 2048)
    plain.pop("name")
    config = {"loss": "circle"} if task == "retrieval" else {}
    with paddle.LazyGuard():  # shapes without memory
        model = unimo.create_model("unimo_base", **plain)
        values = {**done.task, **config}
        layer = task_class(task).create(model, merge_into(task_config(task, "unimo_base"), values))
        wanted = {name: list(value.shape) for name, value in layer.named_parameters()}
    found = {name: list(value.shape) for name, value in done.tensors.items()}
    fresh = {name for name in wanted if name.startswith(("objective.region_head", "objective.class_head"))}
    assert found == {name: shape for name, shape in wanted.items() if name not in fresh}
    assert (len(fresh) == 4) is (task == "pretrain")


def test_values_arrive_where_they_belong(caplog):
    theirs = random_release(VOCABULARY)
    with caplog.at_level("INFO", logger="unimo"):
        done = from_release(theirs)
    ours, config = done.tensors, done.config
    for part, name in enumerate(("query", "key", "value")):
        columns = slice(WIDTH * part, WIDTH * (part + 1))
        layer = f"encoder_layer_1_multi_head_att_{name}_fc"
        qkv = "model.transformer.layers.1.attention.qkv"
        assert np.array_equal(ours[f"{qkv}.weight"][:, columns], theirs[f"{layer}.w_0"])
        assert np.array_equal(ours[f"{qkv}.bias"][columns], theirs[f"{layer}.b_0"])
    assert np.array_equal(ours["objective.mlm_head.decoder.weight"], theirs["word_embedding"].T)
    assert np.array_equal(ours["model.match_head.weight"], theirs["match_fc.w_0"])
    assert np.array_equal(ours["model.regions.norm.bias"], theirs["v_pre_encoder_layer_norm_bias"])
    text = config.text
    assert (text.num_layers, text.num_heads, text.max_position) == (2, 2, POSITIONS)
    assert (config.regions.feature_size, config.role_types, config.turn_types) == (FEATURE, 0, 0)
    assert done.data == {"max_text_len": POSITIONS - 2}
    assert "left out: cls_out_2_b, cls_out_2_w, cls_out_b_0" in caplog.text
    assert "for --task entailment or text_classification" in caplog.text


def test_settings_of_tasks():
    theirs = random_release(VOCABULARY)
    done = from_release(theirs, task="entailment")
    assert done.task["head"] == "linear"
    assert round(done.task["head_hidden_multiplier"] * WIDTH) == HIDDEN
    assert from_release(theirs, task="text_classification").task["dataset"] == "sst2"
    assert from_release(theirs, task="seq2seq").task == {
        "name": "seq2seq",
        "end_token": "mask",
        "dialog": False,
    }
    theirs["role_embedding"] = np.zeros((3, WIDTH), "float32")
    theirs["turn_embedding"] = np.zeros((16, WIDTH), "float32")
    done = from_release(theirs, task="seq2seq")
    assert done.task["dialog"] and (done.config.role_types, done.config.turn_types) == (3, 16)
    with pytest.raises(ConfigError, match="no released weights of UNIMO are for 'vqa'; known: pretrain"):
        from_release(theirs, task="vqa")


def test_the_number_of_heads_is_given_or_that_of_the_release():
    theirs = random_release(VOCABULARY)
    assert from_release(theirs).config.text.num_heads == WIDTH // 64
    assert from_release(theirs, given={"text": {"num_heads": 8}}).config.text.num_heads == 8


def test_an_untied_output_matrix_is_taken():
    theirs = random_release(VOCABULARY) | {UNTIED: np.ones((WIDTH, VOCABULARY), "float32")}
    assert (from_release(theirs).tensors["objective.mlm_head.decoder.weight"] == 1).all()


def test_heads_may_be_absent_unless_the_task_trained_them():
    heads = ("pooled_fc", "match_fc", "mask_lm", "cls_out")
    core = {name: value for name, value in random_release(VOCABULARY).items() if not name.startswith(heads)}
    done = from_release(core)
    parts = ("model.text_pooler", "model.image_pooler", "model.match_head")
    assert done.absent == (*parts, "objective.mlm_head")
    assert not any(name.startswith(done.absent) for name in done.tensors)
    missing = {
        "retrieval": "6 missing: match_fc.b_0, match_fc.w_0, pooled_fc_image.b_0",
        "caption": "5 missing: mask_lm_out_fc.b_0, mask_lm_trans_fc.b_0",
        "entailment": "8 missing: cls_out_b_0, cls_out_b_1, cls_out_w_0, cls_out_w_1, pooled_fc_image.b_0",
        "text_classification": "text classifiers: none; expected one of cls_out_1_w",
    }
    for task, said in missing.items():
        with pytest.raises(CheckpointError, match=said):
            from_release(core, task=task)


def test_folders_of_something_else():
    with pytest.raises(CheckpointError, match=r"is not a release of UNIMO; 3 missing: pos_embedding"):
        from_release({"word_embedding": np.zeros((9, 8), "float32")})
    theirs = random_release(VOCABULARY)
    theirs["adapter_fc.w_0"] = theirs.pop("encoder_layer_0_post_att_layer_norm_bias")
    theirs["image_loc.w_0"] = np.zeros((4, WIDTH), "float32")
    with pytest.raises(CheckpointError) as caught:
        from_release(theirs, "downloads/unimo")
    said = str(caught.value)
    assert "downloads/unimo is not a whole release of UNIMO; 1 missing: encoder_layer_0_post_att" in said
    assert "1 unknown: adapter_fc.w_0;" in said
    assert f"image_loc.w_0 (found [4, {WIDTH}], expected [5, {WIDTH}])" in said
    theirs = random_release(VOCABULARY) | {f"cls_out_3_{part}": np.zeros(3, "float32") for part in "wb"}
    with pytest.raises(CheckpointError, match="text classifiers: cls_out_2_w, cls_out_3_w; expected one"):
        from_release(theirs, task="text_classification")
