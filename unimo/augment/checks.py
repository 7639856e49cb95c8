"""What a job looks at before it begins: its numbers, and the places it writes to."""

from __future__ import annotations

from pathlib import Path

from unimo.errors import ConfigError


def prepare_output(path: Path) -> None:
    """Make the folder of an output file; a job does so first, since its preparations can take hours.

    Raises:
        ConfigError: a folder has the file's name, or its own cannot be made.
    """
    if path.is_dir():
        raise ConfigError(
            f"the output {path} is a folder; expected a file to write, e.g. {path / 'augmented.jsonl'}"
        )
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"{folder} is a file; expected a folder, new or there already: name another"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder} ({error.strerror}); name another") from error


def check_at_least(settings: object, **least: int) -> None:
    """Compare numbers of a settings dataclass with the least value that each may have.

    Raises:
        ConfigError: one is smaller.
    """
    for name, bound in least.items():
        value, default = getattr(settings, name), getattr(type(settings), name)
        if value < bound:
            raise ConfigError(f"{name} is {value}; expected {bound} or more, e.g. {default}, the default")
