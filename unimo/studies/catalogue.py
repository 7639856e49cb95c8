"""All studies by name."""

from __future__ import annotations

from unimo.errors import ConfigError, nearest
from unimo.studies import scenes, unimo, unimo2
from unimo.studies.study import Study

STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in (scenes, unimo2, unimo)}


def find_study(name: str) -> Study:
    """Return the study of a name.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}; {nearest(name, STUDIES)}")
    return STUDIES[name]
