"""One identity of a picture throughout a preparation, and a word about those in two splits."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

from unimo.data.record import picture_name
from unimo.data.splits import common
from unimo.errors import DataError

log = logging.getLogger(__name__)
_COCO = re.compile(r"(?:.*/)?COCO_(train|val|test)\d{4}_(\d{12}\.jpg)")


class Pictures:
    """The pictures of all splits, by their ids, their files and their content.

    Args:
        refuse_shared: a picture in two splits is an error, as in one file of annotations that deals them out;
            else a warning.
    """

    def __init__(self, refuse_shared: bool = False) -> None:
        self._refuse_shared = refuse_shared
        self._files: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._splits: dict[str, str] = {}
        self._seen: dict[bytes | str, str] = {}
        self.copies = 0
        """Pictures that are in another split, too, under the same name or another."""

    def add(self, split: str, image_id: str, path: Path | None) -> None:
        """Note a picture of a split.

        Args:
            image_id: what samples of the picture have in common.
            path: its file; None if that is missing.

        Raises:
            DataError: the id stands for another file, or the file has another id; with `refuse_shared` also:
                it is in another split that shares no samples with this one (`rest_val` does with `val`).
        """
        name = picture_name(image_id)
        where = self._splits.setdefault(name, split)
        if self._refuse_shared and where != split and not common(split, [where]):
            raise DataError(
                f"picture {image_id} is in {where} and in {split}, which must have none in common; "
                "take it out of one of them"
            )
        if path is None:
            return
        file = os.path.realpath(path)
        # COCO's pictures may lie in the folders of 2014 and of 2017, too.
        if (known := self._files.setdefault(name, file)) != file and name == image_id:
            raise DataError(
                f"image_id {image_id} stands for two pictures, {known} and {file}, so each would have the "
                "texts of the other; give them ids of their own"
            )
        if picture_name(other := self._ids.setdefault(file, image_id)) != name:
            raise DataError(
                f"picture {file} has two ids, {other} and {image_id}, so its texts would not match it; give "
                "all its samples one id"
            )

    def compare(self, split: str, content: bytes, name: str) -> None:
        """Count a picture with the bytes or the name of one of another split; the first is a warning."""
        keys = (hashlib.blake2b(content, digest_size=16).digest(), picture_name(name))
        places = [self._seen.setdefault(key, split) for key in keys]
        where = next((place for place in places if place != split and not common(split, [place])), "")
        if where:
            self.copies += 1
            if self.copies == 1:
                log.warning("%s of %s is in %s, too (further ones are counted)", name, split, where)


def coco_2017(name: str) -> tuple[str, ...]:
    """Return the places of a picture in the folders of 2017; none unless it has the name of 2014 or 2015.

    COCO dealt the pictures of `train2014` and `val2014` out anew, to `train2017` and `val2017`.
    """
    found = _COCO.fullmatch(name)
    if found is None:
        return ()
    folders = ("test2017",) if found[1] == "test" else ("train2017", "val2017")
    return tuple(f"{folder}/{found[2]}" for folder in folders)
