"""Starting parts of a model from files."""

from __future__ import annotations

from unimo.models.base import Model
from unimo.weights.layers import load_tower


def load_parts(model: Model) -> Model:
    """Fill the parts of a model whose config names a folder of weights (`init`), and return the model.

    Raises:
        CheckpointError: the files there do not fit.
    """
    for part in model.parts_to_load():
        if part.directory:
            load_tower(part.layer, part.directory, part.drop_layers, part.ignore)
    return model
