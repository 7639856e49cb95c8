"""Heads in the files of METER, BridgeTower and BridgeTower's port at Hugging Face, by task."""

from __future__ import annotations

from collections.abc import Container, Mapping

from unimo.weights.name_map import Row, classifier_rows, mlm_rows, row

Heads = Mapping[str, tuple[Row, ...]]
"""Our head -> its rows. D is the inner width of a classifier with K classes, E that of contrast; T, U, F are
the widths of text, vision and fusion."""

_MATCHING = row("linear", "itm_head", "itm_score.fc", shape=(2, "2F"))
TASK_HEADS: Mapping[str, Heads] = {
    "pretrain": {
        "objective.mlm_head": mlm_rows("F"),
        "objective.itm_head": (row("linear", "objective.itm_head", "itm_score.fc", shape=(2, "2F")),),
    },
    "vqa": {"classifier": classifier_rows("vqa_classifier", "2F")},
    "nlvr2": {"classifier": classifier_rows("nlvr2_classifier", "4F")},
    "entailment": {"classifier": classifier_rows("snli_classifier", "2F")},
}
"""Task -> its heads, but for retrieval. A file for pre-training may lack heads: those of Hugging Face do."""
RANKING: Heads = {
    "itm_head": (
        row("match", "itm_head.weight", "rank_output.weight", shape=(1, "2F")),
        row("match", "itm_head.bias", "rank_output.bias", shape=(1,)),
    )
}
"""Retrieval of METER: one score, which cross-entropy compares with those of mismatched pairs."""
CONTRAST: Heads = {
    "itc_text_head": (row("linear", "itc_text_head.dense", "itc_text_head.fc", shape=("E", "T")),),
    "itc_image_head": (row("linear", "itc_image_head.dense", "itc_image_head.fc", shape=("E", "U")),),
    "temperature": (row("number", "temperature", "temperature"),),
    "itm_head": (_MATCHING,),
}
"""Retrieval of BridgeTower: contrast of the towers' vectors, and matching."""
PORTED_CONTRAST: Heads = {
    "itc_text_head": CONTRAST["itc_text_head"],
    "itc_image_head": (row("linear", "itc_image_head.dense", "itc_image_head.fc", shape=("E", "F")),),
    "temperature": (row("log_scale", "temperature", "logit_scale"),),
    "itm_head": (_MATCHING,),
}
"""The same in the port, whose vector of an image has the width of fusion."""
LEFT_OUT: Mapping[str, str] = {
    "vit_model.positional_embedding": "CLIP's text tower",
    "vit_model.ln_final.": "CLIP's text tower",
    "temperature": "temperature of contrast, for --task retrieval",
    "logit_scale": "scale of contrast, for --task retrieval",
    "mlm_score.": "head over words",
    "itm_score.": "head of matching",
    "itc_cross_modal_head.": "head of contrast of pairs, which nothing here reads",
    "itc_": "heads of contrast, for --task retrieval",
    "rank_output.": "head of ranking, for --task retrieval",
    "vqa_classifier.": "classifier, for --task vqa",
    "nlvr2_classifier.": "classifier, for --task nlvr2",
    "snli_classifier.": "classifier, for --task entailment",
}
"""Beginning of names without a counterpart, or of heads of other tasks -> description."""


def heads_of(task: str, retrieval: Heads, names: Container[str]) -> Heads:
    """Return the heads of a task.

    Args:
        retrieval: heads of retrieval in files of this family.
        names: names of theirs in a file, or of our tensors. BridgeTower's files of retrieval are of two
            kinds: those that were trained as METER have no heads of contrast.
    """
    if task != "retrieval":
        return TASK_HEADS[task]
    has_score = "rank_output.weight" in names or "itm_head.weight" in names
    has_contrast = "itc_text_head.fc.weight" in names or "itc_text_head.dense.weight" in names
    return RANKING if has_score and not has_contrast else retrieval
