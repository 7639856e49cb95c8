"""Commands of `tools/prepare_data.py`: one for each data set, with its options.

A data set joins with a function that writes its tables and a `Command` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unimo.cli import number
from unimo.data.prepare.ade20k import NAMES, prepare_ade20k
from unimo.data.prepare.answer_table import prepare_answers
from unimo.data.prepare.conceptual import prepare_conceptual
from unimo.data.prepare.gqa import prepare_gqa
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.nlvr2 import prepare_nlvr2
from unimo.data.prepare.sbu import prepare_sbu
from unimo.data.prepare.scenes import KINDS, prepare_scenes
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.visual_genome import prepare_vg
from unimo.data.prepare.visual_genome_qa import prepare_vg_qa
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.prepare.web import ROWS_PER_FILE
from unimo.data.readers.answer_table import SIZE
from unimo.ranges import Count, Share, Size

Option = Mapping[str, Any]
"""Arguments of `ArgumentParser.add_argument`."""


@dataclass(frozen=True)
class Command:
    """A data set that can be prepared."""

    name: str
    prepare: Callable[..., dict[str, Any]]
    """Writes the tables; called with the values of the options, and `progress`."""
    what: str
    """The data set, for the help."""
    example: str
    """Options of an example."""
    options: Mapping[str, Option] = field(default_factory=dict)


def _public(annotations: str, images: str, **options: Option) -> dict[str, Option]:
    """Return the options of a public data set, of which the names of `options` are without dashes."""
    give_up = "share of missing or broken images, or of broken records, at which to give up (default 0.01)"
    return {
        "--annotations": {"required": True, "help": annotations},
        "--images": {"required": True, "help": f"folder of {images}"},
        **_OUT,
        **{f"--{name.replace('_', '-')}": option for name, option in options.items()},
        "--max-missing-rate": {"type": number(Share), "default": 0.01, "help": give_up},
    }


def _count(what: str, default: int = 0, smallest: Any = Count) -> Option:
    return {"type": number(smallest), "default": default, "help": f"{what} (default {default})"}


_OUT: dict[str, Option] = {"--out": {"required": True, "help": "folder to write to"}}
_LAST = _count("number of last pictures that become val")
_ROWS = _count("images of one file; 0: all", ROWS_PER_FILE)
_HELD_OUT: Option = {
    "nargs": "+",
    "default": (),
    "metavar": "JSON",
    "help": "Karpathy JSONs of COCO and Flickr30k, whose pictures of val and test are left out",
}
_DOWNLOADED = "downloaded pictures, in img2dataset's or ViLT's layout"

COMMANDS = (
    Command(
        "karpathy",
        prepare_karpathy,
        "Flickr8k, Flickr30k or COCO captions",
        "--annotations dataset_coco.json --images coco --out data/coco",
        _public(
            "Karpathy JSON, e.g. dataset_flickr8k.json",
            "the images (COCO: with train2014, val2014)",
            name={"default": "", "help": "first part of the file names; from the JSON if not given"},
            rows_per_file=_count("images of one file; 0: all"),
        ),
    ),
    Command(
        "vqa",
        prepare_vqa,
        "VQA v2",
        "--annotations vqav2 --images coco --out data/vqa",
        _public(
            "folder of the v2_*_questions.json and *_annotations.json",
            "train2014, val2014 and, for test, test2015",
            variant={
                "choices": ("raw", "normalised"),
                "default": "raw",
                "help": "annotators' answers as they are (ViLT) or normalised (BridgeTower; files *_fix)",
            },
            min_count=_count("smallest count of an answer class", 9, Size),
            rest_images=_count("images of rest_val", 1000),
        ),
    ),
    Command(
        "gqa",
        prepare_gqa,
        "GQA",
        "--annotations gqa --images gqa/images --out data/gqa",
        _public("folder of the *_questions.json (and *_choices.json)", "the images"),
    ),
    Command(
        "snli-ve",
        prepare_snli_ve,
        "SNLI-VE",
        "--annotations snli_ve --images flickr30k-images --out data/snli_ve",
        _public("folder of snli_ve_{train,dev,test}.jsonl", "the Flickr30k images"),
    ),
    Command(
        "nlvr2",
        prepare_nlvr2,
        "NLVR2",
        "--annotations nlvr2/data --images nlvr2-images --out data/nlvr2",
        _public("folder of train.json, dev.json, test1.json", "train/<directory>, dev and test1"),
    ),
    Command(
        "vg",
        prepare_vg,
        "phrases of Visual Genome",
        "--annotations vg --images vg --out data/vg",
        _public(
            "folder of region_descriptions.json (and image_data.json)",
            "VG_100K and VG_100K_2",
            held_out=_HELD_OUT,
            val_images=_LAST,
        ),
    ),
    Command(
        "vg-qa",
        prepare_vg_qa,
        "questions of Visual Genome",
        "--annotations vg --images vg --vocabulary data/vqa/answers.json --out data/vgqa",
        _public(
            "folder of question_answers.json (and image_data.json)",
            "VG_100K and VG_100K_2",
            vocabulary={
                "default": "",
                "metavar": "JSON",
                "help": "answer classes; default: frequent answers",
            },
            min_count=_count("smallest count of an answer class without --vocabulary", 9, Size),
            held_out=_HELD_OUT,
            val_images=_LAST,
        ),
    ),
    Command(
        "answers",
        prepare_answers,
        "answers that pre-training on questions knows, from prepared corpora",
        "--corpora data/vqa data/gqa data/vgqa --out data/answers",
        {
            "--corpora": {"required": True, "nargs": "+", "metavar": "DIR", "help": "corpora of questions"},
            **_OUT,
            "--count": _count("largest number of answers", SIZE, Size),
        },
    ),
    Command(
        "sbu",
        prepare_sbu,
        "SBU captions",
        "--annotations sbu-captions-all.json --images sbu --out data/sbu",
        _public(
            "sbu-captions-all.json, or a folder of SBU_captioned_photo_dataset_{urls,captions}.txt",
            _DOWNLOADED,
            val_images=_LAST,
            rows_per_file=_ROWS,
        ),
    ),
    Command(
        "cc",
        prepare_conceptual,
        "Conceptual Captions",
        "--annotations cc3m --images cc3m --out data/cc",
        _public(
            "folder of Train_GCC-training.tsv and Validation_GCC-*.tsv, or one of them",
            _DOWNLOADED,
            rows_per_file=_ROWS,
        ),
    ),
    Command(
        "ade20k",
        prepare_ade20k,
        "ADE20K, for segmentation",
        "--input ADEChallengeData2016 --out data/ade20k",
        {
            "--input": {
                "required": True,
                "dest": "source",
                "help": f"folder of images, annotations and {NAMES}",
            },
            **_OUT,
            "--max-missing-rate": {
                "type": number(Share),
                "default": 0.01,
                "help": "share of pictures without a sound map at which to give up (default 0.01)",
            },
        },
    ),
    Command(
        "jsonl",
        prepare_jsonl,
        "your own images and texts (see docs/guides/data.md)",
        "--input my.jsonl --kind pairs --out data/mine",
        {
            "--input": {
                "required": True,
                "dest": "source",
                "help": "jsonl file, or folder of train.jsonl, val.jsonl",
            },
            "--images": {"help": "folder that image paths are relative to; default: the jsonl file's"},
            **_OUT,
            "--kind": {"choices": KINDS, "default": "pairs"},
            "--name": {"default": "own", "help": "first part of the file names"},
            "--min-count": _count("questions: smallest count of an answer class", 1, Size),
            "--max-missing-rate": {
                "type": number(Share),
                "default": 0.01,
                "help": "share of broken samples at which to give up (default 0.01)",
            },
        },
    ),
    Command(
        "scenes",
        prepare_scenes,
        "pictures of the built-in corpus as files, to try what is meant for yours",
        "--out pictures",
        {
            **_OUT,
            "--kind": {"choices": KINDS, "default": "pairs"},
            "--count": _count("pictures; of nlvr2 sentences with four pictures each", 100, Size),
        },
    ),
)
