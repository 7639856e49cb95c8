"""Folders that hold the weights of one text or vision tower: `config.yaml` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

from paddle import nn

from unimo.config import read_yaml
from unimo.errors import CheckpointError
from unimo.weights.files import read_safetensors
from unimo.weights.layers import load_into

_TOKEN_TYPE = "embeddings.token_type.weight"


def load_tower(
    tower: nn.Layer, directory: str | Path, drop_layers: int = 0, ignore: tuple[str, ...] = ()
) -> None:
    """Fill a text or vision tower from a folder that `tools/convert_checkpoint.py` wrote.

    RoBERTa's pooler may be missing there: no model here uses it. Its one token type, a constant, is added
    to the positions when the tower has none.

    Args:
        tower: the layer to fill. Its `tower_kind` is the kind of folder that it reads (key `tower` of
            `config.yaml`), its `layers` are the blocks.
        directory: the folder with `config.yaml` and `model.safetensors`.
        drop_layers: number of last blocks in the file that are left out on purpose (METER drops one).
        ignore: prefixes of names that only the file or only the tower has.

    Raises:
        CheckpointError: not such a folder, another kind of tower, or other sizes.
    """
    folder = Path(directory)
    if not (folder / "config.yaml").is_file() or not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} is not a folder of tower weights (config.yaml and model.safetensors); make one with "
            f"python tools/convert_checkpoint.py --from hf-roberta|hf-clip-vit|hf-vit ... (see --help)"
        )
    config = read_yaml(folder / "config.yaml")
    depth, blocks = config.get("num_layers", 0) - drop_layers, tower.layers
    found = (config.get("tower"), depth, config.get("num_heads"))
    wanted = (tower.tower_kind, len(blocks), blocks[0].attention.num_heads)
    if found != wanted:
        texts = ["a {} tower of {} layers and {} heads".format(*kind) for kind in (found, wanted)]
        raise CheckpointError(
            f"{folder} holds {texts[0]}, the model wants {texts[1]}; give the folder of another model"
        )
    tensors = read_safetensors(folder / "model.safetensors")
    if _TOKEN_TYPE in tensors and _TOKEN_TYPE not in tower.state_dict():
        tensors["embeddings.position.weight"] = tensors["embeddings.position.weight"] + tensors.pop(
            _TOKEN_TYPE
        )
    dropped = tuple(f"layers.{depth + i}." for i in range(drop_layers))
    load_into(tower, tensors, str(folder), ignore=("pooler.", *ignore, *dropped))
