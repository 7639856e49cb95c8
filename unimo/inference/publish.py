"""Upload a model directory, or an export, to the Hugging Face hub: as one commit, or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from unimo.errors import CheckpointError, ConfigError, first_line
from unimo.files import is_hidden
from unimo.inference.card import CARD, model_card
from unimo.inference.export.run import MANIFEST
from unimo.inference.loading import find_model
from unimo.inference.saving import CONFIG, read_config


def push(path: str | Path, repository: str) -> str:
    """Upload a folder with its card; one without README.md gets that of `model_card`.

    Of an absolute path in config.yaml only the last name leaves this machine; all else goes as it is.

    Args:
        path: model directory, run folder or name; or a folder that `tools/export.py` wrote.
        repository: OWNER/NAME of a repository of models that exists, at the hub or at `HF_ENDPOINT`.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: there is no token, no such repository, or no right to write to it.
        CheckpointError: there is no such model, or the hub refuses it or cannot be reached.
    """
    folder = Path(path) if (Path(path) / MANIFEST).is_file() else find_model(path)
    files = sorted(each for each in folder.iterdir() if each.is_file() and not is_hidden(each.name))
    changes = [CommitOperationAdd(each.name, str(each)) for each in files if each.name != CONFIG]
    if (folder / CONFIG).is_file():
        content = {
            name: section if name == "metadata" else _without_folders(section)
            for name, section in read_config(folder).items()
        }
        changes.append(CommitOperationAdd(CONFIG, yaml.safe_dump(content, sort_keys=False).encode()))
    if not any(each.name == CARD for each in files):
        changes.append(CommitOperationAdd(CARD, model_card(folder).encode()))
    token = get_token()
    if not token:
        raise ConfigError(
            "there is no token for the hub; set HF_TOKEN, or run: hf auth login (tokens with the right to "
            "write are made at https://huggingface.co/settings/tokens)"
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        api.repo_info(repository)
        done = api.create_commit(repository, changes, commit_message=f"Upload {folder.name} with unimo")
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"no repository {repository} that this token may see; make it: hf repo create {repository}"
        ) from error
    except HFValidationError as error:
        raise ConfigError(f"{repository} is no name of a repository; expected OWNER/NAME") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise ConfigError(
                f"the token may not write to {repository} ({status}); take one with that right"
            ) from error
        raise CheckpointError(
            f"{repository}: the hub refused ({first_line(error)}); nothing was changed"
        ) from error
    except Exception as error:  # of requests or of httpx, as its version has it
        raise CheckpointError(
            f"{repository}: the hub cannot be reached ({first_line(error)}); an upload is one commit, so it "
            "is there whole or not at all. Try again"
        ) from error
    return done.commit_url


def _without_folders(content: Any) -> Any:
    """Shorten absolute paths to their last name: whoever shares a model need not share where it is kept."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_folders(value) for value in content]
    if isinstance(content, str) and Path(content).expanduser().is_absolute():
        return Path(content).name
    return content
