"""Files of weights, config and tokenizer in what a user has: a file, or a folder of Hugging Face."""

from __future__ import annotations

from pathlib import Path

from unimo.errors import CheckpointError
from unimo.files import checked_path, is_hidden, read_json_object

INDEX = ".index.json"
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pdparams", ".pdopt")
"""Endings of files of weights; all but the first are pickles or hold one."""
_NAMES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "model_state.pdparams",
    "mp_rank_00_model_states.pt",
)
"""Names of Hugging Face, PaddleNLP and DeepSpeed; the first that is there is read."""
_TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
"""Files of a tokenizer, as `load_tokenizer` knows them."""


def find_weights(path: str | Path) -> Path:
    """Return the file of weights that a path means: itself, or the one in a folder.

    A folder without one is returned: in those of Paddle 1.x each file is a parameter.

    Raises:
        CheckpointError: no file can have this name, or a folder has several and none of a known name.
    """
    path = checked_path(path, CheckpointError, "the weights")
    if not path.is_dir():
        return path
    inside = sorted(item for item in path.iterdir() if item.is_file() and not is_hidden(item.name))
    for name in _NAMES:
        if path / name in inside:
            return path / name
    files = [item for item in inside if item.suffix in ENDINGS or item.name.endswith(INDEX)]
    if len(files) > 1:
        names = ", ".join(item.name for item in files[:8])
        raise CheckpointError(f"{path} has several files of weights: {names}; give one of them")
    if not files and path / "config.json" in inside:
        raise CheckpointError(f"{path} has a config.json and no weights; expected one of {', '.join(_NAMES)}")
    return files[0] if files else path


def find_config(path: str | Path) -> Path | None:
    """Return the config.json in a folder, or beside a file; None if there is none."""
    config = _folder(path) / "config.json"
    return config if config.is_file() else None


def find_tokenizer(path: str | Path) -> list[Path]:
    """Return the files of the tokenizer in a folder, or beside a file."""
    return [file for name in _TOKENIZERS if (file := _folder(path) / name).is_file()]


def _folder(path: str | Path) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


def shards(index: Path) -> dict[Path, list[str]]:
    """Read the index of a sharded folder: file -> names of its tensors.

    Raises:
        CheckpointError: it is no such index, or names a file that is not beside it.
    """
    names = read_json_object(index, CheckpointError).get("weight_map")
    texts = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
    if not texts or not names:
        raise CheckpointError(f"{index}: expected a weight_map of tensors and files; download it again")
    found: dict[Path, list[str]] = {}
    for tensor, name in names.items():
        found.setdefault(index.parent / name, []).append(tensor)
    for file in found:
        if file.parent != index.parent or not file.is_file() or file.name.endswith(INDEX):
            raise CheckpointError(
                f"{index} names the file {file.name}, which is not beside it; download the whole folder"
            )
    return found
