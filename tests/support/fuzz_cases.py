"""Inputs of tests/test_fuzz.py: small sound files of each kind, their mutations and their readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fuzz_readers as read
import fuzz_sources as make
import fuzz_texts as texts
from fuzz_bytes import BYTES, Mutation, mutate_json, mutate_line, mutate_words, mutate_yaml
from fuzz_formats import (
    mutate_pickle,
    mutate_png,
    mutate_regions_line,
    mutate_safetensors,
    mutate_sqlite,
    mutate_tar,
)


@dataclass(frozen=True)
class Case:
    """One sort of files and its reader."""

    name: str
    make: Callable[[Path], object]
    """Writes sound files into a folder."""
    files: str
    """Pattern of the files in it of which one is mutated."""
    read: Callable[[Path], int]
    """Reads the folder as a user would and returns the number of records that it counted as broken."""
    knowing: Sequence[Mutation] = ()
    """Mutations that know the format, which make up half."""
    plain: Sequence[Mutation] = BYTES


KINDS: dict[str, tuple[Case, ...]] = {
    "tar": tuple(
        Case(f"{form}-{kind}", make.tar(form, kind), "*.tar", read.corpus(kind), (mutate_tar,))
        for form, kind in (
            ("ustar", "pairs"),
            ("gnu", "vqa"),
            ("pax", "pairs"),
            ("pax", "images"),
            ("gnu", "texts"),
        )
    ),
    "arrow": tuple(
        Case(f"{kind}-{packed}", make.arrow(kind, packed), "*.arrow", read.corpus(kind))
        for kind in ("pairs", "vqa", "entailment", "texts", "images")
        for packed in (None, "lz4", "zstd")
    ),
    "store": (
        Case("shard", make.store, "regions-*.safetensors", read.store, (mutate_safetensors,)),
        Case("index", make.store, "index.json", read.store, (mutate_json,)),
        Case("keys", make.store, "index.arrow", read.store),
        Case("labels", make.store, "labels.jsonl", read.store, (mutate_line,)),
    ),
    "index": (
        Case("sqlite", make.index, "index.sqlite", read.index, (mutate_sqlite,)),
        Case("unfinished", make.unfinished_index, "index.sqlite", read.unfinished_index, (mutate_sqlite,)),
        Case("norms", make.index, "norms.f32", read.index),
        Case("extras", make.extras, "*.jsonl", read.extras, (mutate_line,)),
        Case("extras-index", make.extras, ".*.npy", read.extras),
        Case("translations", make.translations, "*.jsonl", read.translations, (mutate_line,)),
        Case("table", texts.table_of_translations, "*.sqlite", read.translations, (mutate_sqlite,)),
        Case("statistics", texts.statistics, "*.npz", texts.go_on_counting),
    ),
    "tsv": (
        Case("regions", make.regions_tsv, "*.tsv", read.store, (mutate_regions_line,)),
        Case("glue", make.glue, "*.tsv", read.glue, (mutate_words,)),
        Case("written", texts.written_tsv, "*.tsv", texts.generation, (mutate_words,)),
        Case("lines", texts.pairs_of_lines, "*", texts.generation, (mutate_words,)),
        Case("names", texts.names, "*.txt", texts.read_all_names, (mutate_words,)),
        Case("conceptual", texts.web_captions, "*.tsv", read.conceptual, (mutate_words,)),
    ),
    "safetensors": (
        Case("weights", make.weights, "*.safetensors", read.tensors, (mutate_safetensors,)),
        Case("model", make.model, "model.safetensors", read.model, (mutate_safetensors,)),
        Case("tower", make.tower, "*.safetensors", read.tower, (mutate_safetensors,)),
        Case("folder", make.paddle_folder, "*", read.paddle_folder),
    ),
    "pickle": (
        Case("pdparams", make.pickled("w.pdparams", 4), "*", read.tensors, (mutate_pickle,)),
        Case("pdparams-2", make.pickled("w.pdparams", 2), "*", read.tensors, (mutate_pickle,)),
        Case("cifar", make.cifar, "*", read.labeled, (mutate_pickle,)),
        Case("detectron", make.detectron, "*.pkl", read.detectron, (mutate_pickle,)),
    ),
    "tokenizer": (
        Case("json", make.tokenizer, "tokenizer.json", read.tokenizer, (mutate_json,)),
        Case("bpe", make.bpe, "*", read.tokenizer, (mutate_words,)),
        Case("bpe-json", make.bpe, "*.json", read.tokenizer, (mutate_json,)),
        Case("released", make.released_bpe, "*", read.tokenizer, (mutate_words,)),
        Case("released-json", make.released_bpe, "*.json", read.tokenizer, (mutate_json,)),
    ),
    "yaml": (
        Case("recipe", make.recipe, "*.yaml", read.recipe, (mutate_yaml,)),
        Case("detector", make.detector_config, "*.yaml", read.detector_config, (mutate_yaml,)),
        Case("model", make.model, "config.yaml", read.model, (mutate_yaml,)),
        Case("tower", make.tower, "*.yaml", read.tower, (mutate_yaml,)),
    ),
    "json": (
        *(
            Case(f"lines-{kind}", make.lines(kind), "*.jsonl", read.corpus(kind), (mutate_line,))
            for kind in ("pairs", "vqa", "entailment", "texts", "images")
        ),
        Case("written", texts.written_lines, "*.jsonl", texts.generation, (mutate_line,)),
        Case("coqa", texts.coqa, "*.json", texts.generation, (mutate_json,)),
        Case("squad", texts.squad, "*.json", texts.generation, (mutate_json,)),
        Case("prepare", make.lines("vqa"), "*.jsonl", read.prepare_lines, (mutate_line,)),
        Case("karpathy", make.karpathy, "*.json", read.karpathy, (mutate_json,)),
        Case("vqa", make.vqa, "*.json", read.vqa, (mutate_json,)),
        Case("snli-ve", make.snli_ve, "*.jsonl", read.snli_ve, (mutate_line,)),
        Case("visual-genome", texts.visual_genome, "*.json", read.visual_genome, (mutate_json,)),
        Case("visual-genome-qa", texts.visual_genome_qa, "*.json", read.visual_genome_qa, (mutate_json,)),
        Case("gqa", texts.gqa, "*.json", read.gqa, (mutate_json,)),
        Case("sbu", texts.web_captions, "sbu-*.json", read.sbu, (mutate_json,)),
        Case("notes", texts.web_captions, "pictures/*/*.json", read.conceptual, (mutate_json,)),
        Case("coco", make.coco, "*.json", read.coco, (mutate_json,)),
        Case("tower", make.hf_tower, "config.json", read.hf_tower, (mutate_json,)),
        Case("answers", make.answers, "answers.json", read.corpus("vqa"), (mutate_json,)),
    ),
    "image": tuple(
        Case(name, make.picture(name), "*", read.pictures, (mutate_png,) if name.endswith("png") else ())
        for name in make.PICTURES
    ),
}
