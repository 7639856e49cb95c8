"""All studies: on `scenes`, does what a paper adds help, and how much? And GLUE."""

from __future__ import annotations

from unimo.errors import ConfigError, nearest
from unimo.studies.catalogue.glue import GLUE
from unimo.studies.catalogue.images import IMAGES
from unimo.studies.catalogue.scenes import SCENES
from unimo.studies.catalogue.semvlp import SEMVLP
from unimo.studies.catalogue.unimo import UNIMO
from unimo.studies.catalogue.unimo2 import UNIMO2
from unimo.studies.catalogue.vlmo import VLMO
from unimo.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (SCENES, UNIMO2, UNIMO, VLMO, SEMVLP, IMAGES, GLUE)
}


def find_study(name: str) -> Study:
    """Return the study of a name.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}; {nearest(name, STUDIES)}")
    return STUDIES[name]
