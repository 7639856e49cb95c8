"""The name map of the released UNIMO-2: every name of the release, and folders that are not whole."""

import re

import numpy as np
import paddle
import pytest
from released_folder import (
    DEPTHS,
    ROWS,
    WIDTH,
    listed_names,
    projections,
    random_release,
    random_values,
    shapes,
)

import unimo
from unimo.config import merge_into, to_plain
from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo2.convert import (
    ADVICE,
    ENCODERS,
    LEFT_OUT,
    MEASURED,
    from_release,
    present_rows,
    release_config,
)
from unimo.models.unimo2.pretrain import Objective
from unimo.registry import build_model, task_class, task_config
from unimo.weights.released import Folder

BASE = {"H": 768, "V": 50265, "P": 514, "C": 2048, "I": 3072, "num_labels": 3}
VOCABULARY = 40


@pytest.fixture(scope="module")
def official(shared):
    found = listed_names(shared, "unimo2_base", BASE)
    assert len(found) == 621
    return found


def joined(row, sizes):
    """Shape of ours that a row of theirs makes."""
    shape = [sizes[size] if isinstance(size, str) else size for size in row.shape]
    shape = shape[::-1] if row.kind == "turned" else shape
    shape = (
        [size for axis, size in enumerate(shape) if axis == 2 or size > 1] if row.kind == "batch" else shape
    )
    return [*shape[:-1], shape[-1] * len(row.theirs)]


@pytest.mark.parametrize("option", [True, False], ids=["with options", "as released"])
def test_all_names_of_the_release_are_mapped_or_left_out(official, option):
    untied = "grounded.mask_lm_out_fc.w_0"
    tensors = {name: value for name, value in official.items() if option or name != untied}
    folder = Folder(tensors, "the folder", "UNIMO-2", ADVICE)
    sizes = folder.sizes(MEASURED)
    assert sizes == {"H": 768, "V": 50265, "P": 514, "C": 2048, "I": 3072, "G": 197, "patch": 16}
    rows, absent = present_rows(folder)
    assert absent == ()
    mapped = {name for row in rows for name in row.theirs}
    left = {name for name in tensors if name.startswith(tuple(LEFT_OUT))}
    assert mapped | left == set(tensors) and not mapped & left
    assert (untied in mapped) is option
    for row in rows:
        for name in row.theirs:
            expected = tuple(sizes[size] if isinstance(size, str) else size for size in row.shape)
            assert official[name].shape == expected, name


def test_the_mapped_tensors_are_all_of_the_base_model(official):
    """590 of the release's 591 core tensors (all but `cmcl_temperature`), poolers, two heads."""
    folder = Folder(official, "the folder", "UNIMO-2", ADVICE)
    rows, _ = present_rows(folder)
    core = [row for row in rows if row.ours.startswith("model.") and "pooler" not in row.ours]
    assert sum(len(row.theirs) for row in core) == 590
    sizes = folder.sizes(MEASURED)
    config = release_config(sizes, dict.fromkeys(ENCODERS, 12))
    plain = to_plain(config)
    assert plain["vision"]["patch_padding"] == 7 and plain["vision"]["image_size"] == 224
    assert plain["grounding"]["mask_padding"] is False and plain["grounding"]["num_tokens"] == 100
    fusion = plain["fusion"]
    assert fusion["contrastive_weight"] == 0.3
    assert (fusion["itm_feature"], fusion["caption_sees_image"], fusion["pooler"]) == (
        "product",
        True,
        "relu",
    )
    plain.pop("name")
    with paddle.LazyGuard():  # shapes without memory
        model, objective = unimo.create_model("unimo2_base", **plain), Objective(config)
        layers = {"model": model, "objective": objective}
        wanted = {
            f"{part}.{name}": list(parameter.shape)
            for part, layer in layers.items()
            for name, parameter in layer.named_parameters()
        }
    found = {row.ours: joined(row, sizes) for row in rows}
    assert {name for name in wanted if name not in found} == {
        "objective.vcl_head.dense.weight",
        "objective.vcl_head.dense.bias",
    }
    assert found == {name: shape for name, shape in wanted.items() if name in found}


def test_values_arrive_where_they_belong(caplog):
    theirs = random_release(VOCABULARY)
    with caplog.at_level("INFO", logger="unimo"):
        done = from_release(theirs)
    ours, config = done.tensors, done.config
    for part, name in enumerate(("query", "key", "value")):
        columns = slice(WIDTH * part, WIDTH * (part + 1))
        layer = f"text.encoder_layer_1_multi_head_att_{name}_fc"
        assert np.array_equal(
            ours["model.text.layers.1.attention.qkv.weight"][:, columns], theirs[f"{layer}.w_0"]
        )
        assert np.array_equal(ours["model.text.layers.1.attention.qkv.bias"][columns], theirs[f"{layer}.b_0"])
    assert np.array_equal(ours["objective.mlm_head.decoder.weight"], theirs["text.word_embedding"].T)
    assert np.array_equal(ours["model.vision.position_embedding"], theirs["vit.position_embeddings"][0])
    assert ours["model.grounding.temperature"].tolist() == [1.5]
    depths = {
        "vit": config.vision.num_layers,
        "text": config.text.num_layers,
        "grounded": config.fusion.num_layers,
    }
    assert depths == DEPTHS and config.grounding.dictionary_size == ROWS and config.text.num_heads == 2
    assert done.data["image_size"] == 48 and done.data["max_text_len"] == 32
    assert "left out: cmcl_temperature, grounded.mask_g_out_fc.b_0" in caplog.text
    assert "head of masked grounded tokens" in caplog.text


def test_an_untied_output_matrix_is_taken():
    theirs = random_release(VOCABULARY)
    theirs["grounded.mask_lm_out_fc.w_0"] = np.ones((WIDTH, VOCABULARY), "float32")
    assert (from_release(theirs).tensors["objective.mlm_head.decoder.weight"] == 1).all()


def test_heads_may_be_absent_but_not_in_part():
    heads = ("grounded.pooled", "grounded.img_text", "grounded.mask_lm")
    core = {name: value for name, value in random_release(VOCABULARY).items() if not name.startswith(heads)}
    done = from_release(core)
    assert done.absent == (
        "model.text_pooler",
        "model.image_pooler",
        "objective.itm_head",
        "objective.mlm_head",
    )
    assert not any(name.startswith(done.absent) for name in done.tensors)
    core["grounded.mask_lm_trans_fc.b_0"] = np.zeros(WIDTH, "float32")
    with pytest.raises(
        CheckpointError, match=r"4 missing: grounded.mask_lm_out_fc.b_0, grounded.mask_lm_trans"
    ):
        from_release(core)


def test_missing_unknown_and_misshaped_are_all_named():
    theirs = random_release(VOCABULARY)
    gone = "grounded.encoder_layer_0_post_att_layer_norm_bias"
    theirs["vit.adapter_fc.w_0"] = theirs.pop(gone)
    theirs["text.encoder_layer_1_multi_head_att_key_fc.w_0"] = np.zeros((WIDTH, 2 * WIDTH), "float32")
    with pytest.raises(CheckpointError) as caught:
        from_release(theirs, "downloads/UNIMO-2")
    said = str(caught.value)
    assert "downloads/UNIMO-2 is not a whole release of UNIMO-2" in said
    assert f"1 missing: {gone};" in said and "1 unknown: vit.adapter_fc.w_0;" in said
    assert "text.encoder_layer_1_multi_head_att_key_fc.w_0 (found [128, 256], expected [128, 128])" in said


def test_folders_of_something_else():
    with pytest.raises(
        CheckpointError, match=r"6 missing: text.word_embedding, .*Give the folder of UNIMO-2.tar"
    ):
        from_release({"word_embedding": np.zeros((9, 8), "float32")})
    theirs = random_release(VOCABULARY)
    theirs["vq_emb"] = theirs["vq_emb"].reshape(-1)
    with pytest.raises(CheckpointError, match=re.escape("1 mis-shaped: vq_emb [20480]")):
        from_release(theirs)
    theirs = random_release(VOCABULARY)
    theirs["vit.position_embeddings"] = theirs["vit.position_embeddings"][:, :9]
    with pytest.raises(CheckpointError, match=r"vit.position_embeddings \(9 rows, expected 1 and a square\)"):
        from_release(theirs)
    narrow = {name: np.zeros([96 if size == WIDTH else size for size in shape], "float32")
              for name, shape in shapes(VOCABULARY, 4 * 96).items()}  # fmt: skip
    with pytest.raises(CheckpointError, match="the width is 96, expected a multiple of 64"):
        from_release(narrow)
    heads = {part: {"num_heads": 6} for part in ("text", "vision", "fusion")}
    config = from_release(narrow, given=heads).config
    assert [part.num_heads for part in (config.text, config.vision, config.fusion)] == [6, 6, 6]


def test_projections_are_taken_where_they_are_given():
    theirs, given = random_release(VOCABULARY) | projections(), {"grounding": {"project": True}}
    assert not any("projection" in name for name in from_release(theirs).tensors)
    done = from_release(theirs, given=given)
    assert done.config.grounding.project
    for ours, name in (("text", "token"), ("image", "patch")):
        theirs_name = f"grounded.grounding_{name}_projection"
        assert np.array_equal(done.tensors[f"model.{ours}_projection.weight"], theirs[f"{theirs_name}.w_0"])
        assert np.array_equal(done.tensors[f"model.{ours}_projection.bias"], theirs[f"{theirs_name}.b_0"])
    with pytest.raises(CheckpointError, match=r"4 missing: grounded.grounding_patch_projection.b_0"):
        from_release(random_release(VOCABULARY), given=given)


def test_the_number_of_grounded_tokens_is_given():
    theirs = random_release(VOCABULARY)
    theirs["vq_emb"] = theirs["vq_emb"][:60]
    with pytest.raises(ConfigError, match=r"num_tokens \(K\) 100 is not between 0 and .* 60"):
        from_release(theirs)
    assert from_release(theirs, given={"grounding": {"num_tokens": 20}}).config.grounding.num_tokens == 20
    with pytest.raises(ConfigError, match="unknown key model.grounding.topk"):
        from_release(theirs, given={"grounding": {"topk": 20, "num_tokens": 20}})


@pytest.mark.parametrize(
    ("name", "classes", "dataset"),
    [("cls_out", 3, "mnli"), ("cls_out_new", 1, "stsb"), ("cls_out", 2, "sst2")],
)
@pytest.mark.parametrize("vision", [True, False])
def test_text_classifiers(name, classes, dataset, vision):
    theirs = random_release(VOCABULARY) | random_values(
        {f"{name}_w": (WIDTH, classes), f"{name}_b": (classes,)}, 3
    )
    if not vision:  # their graph of a text alone has none
        gone = ("vit.", "grounded.pooled_fc_image", "grounded.img_text", "grounded.mask")
        theirs = {key: value for key, value in theirs.items() if not key.startswith(gone)}
    done = from_release(theirs, task="text_classification")
    assert done.task == {"name": "text_classification", "dataset": dataset}
    assert np.array_equal(done.tensors["classifier.weight"], theirs[f"{name}_w"])
    assert np.array_equal(done.tensors["classifier.bias"], theirs[f"{name}_b"])
    assert done.absent == (() if vision else ("model.vision", "model.image_pooler"))
    assert not any(key.startswith("objective.") for key in done.tensors)
    config = merge_into(task_config("text_classification", "unimo2_base"), done.task)
    with paddle.LazyGuard():  # shapes without memory
        layer = task_class("text_classification").create(build_model(done.config), config)
    wanted = {key: tuple(value.shape) for key, value in layer.named_parameters()}
    found = {key: value.shape for key, value in done.tensors.items()}
    assert found == {key: shape for key, shape in wanted.items() if not key.startswith(done.absent or "-")}


def test_folders_without_one_text_classifier():
    theirs = random_release(VOCABULARY)
    said = "text classifiers: none; expected one of cls_out_w and cls_out_new_w"
    with pytest.raises(CheckpointError, match=said):
        from_release(theirs, task="text_classification")
    theirs |= random_values({"cls_out_w": (WIDTH, 3), "cls_out_b": (3,)}, 3)
    theirs |= random_values({"cls_out_new_w": (WIDTH, 5), "cls_out_new_b": (5,)}, 3)
    with pytest.raises(CheckpointError, match=r"cls_out_w \[128, 3\], cls_out_new_w \[128, 5\]; expected"):
        from_release(theirs, task="text_classification")
    with pytest.raises(CheckpointError, match=r"cls_out_new_w \[128, 5\]; expected one"):
        from_release(
            {key: value for key, value in theirs.items() if key[:9] != "cls_out_w"},
            task="text_classification",
        )
    with pytest.raises(ConfigError, match="UNIMO-2 are for 'vqa'; known: pretrain, text_classification"):
        from_release(theirs, task="vqa")
