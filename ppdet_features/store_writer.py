"""Writing of a store of region features: which files are missing, and the end of the job.

The list of images alone decides which file an image is in, so ranks share the files, and a resumed job
writes those that are missing. Ranks exchange no messages: the one that finds all files complete ends the job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unimo.data.loading.loader import RecordCounter
from unimo.data.regions.shard import ShardReader, Skipped, StoredImage, Widths, write_shard
from unimo.data.regions.store import shard_path, write_index
from unimo.errors import DataError
from unimo.files import write_text
from unimo.jobs import Shard, check_same_job

JOB = "job.json"
ALL = Shard()
"""The files of a process that does the job alone."""


class StoreWriter:
    """Writes the files of one job: those of `part`, with `images_per_shard` of all `images` in each.

    Args:
        folder: created if it does not exist.
        job: whatever else decides about the content.
        names, label_score: see `write_index`.

    Raises:
        DataError: the folder holds the work of another job, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        job: Mapping[str, Any],
        images: int,
        images_per_shard: int,
        widths: Widths,
        names: Mapping[str, Sequence[str]],
        label_score: float = 0.2,
        part: Shard = ALL,
    ) -> None:
        self.folder, self.images = folder, images
        self.widths, self.names, self.label_score = widths, names, label_score
        self.shards = -(-images // images_per_shard)
        self.mine = {
            shard: range(images)[shard * images_per_shard : (shard + 1) * images_per_shard]
            for shard in part.numbers(self.shards)
        }
        """The files of this process, with the numbers of their images."""
        settings = {"images": images, "images_per_shard": images_per_shard, "label_score": label_score}
        described = {**job, **settings, "widths": vars(widths)}
        note, complaint = folder / JOB, f"{folder} holds the work of another job"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if part.of == 1:
                self._remove_leftovers(".*.tmp")
            if note.exists() or any(folder.glob("regions-*")):
                check_same_job(note, described, complaint)
            else:
                write_text(note, json.dumps(described, indent=1) + "\n")
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}") from error

    def _is_done(self, shard: int) -> bool:
        return shard_path(self.folder, shard).exists()  # files are written whole or not at all

    def missing(self) -> dict[int, range]:
        """Return those of `mine` that are still to be written."""
        return {shard: numbers for shard, numbers in self.mine.items() if not self._is_done(shard)}

    def write(self, shard: int, entries: Sequence[StoredImage | Skipped]) -> None:
        """Write a file: its images in order, each as returned by `halve`, or skipped."""
        images = [entry for entry in entries if isinstance(entry, StoredImage)]
        skipped = [entry for entry in entries if isinstance(entry, Skipped)]
        write_shard(shard_path(self.folder, shard), images, skipped, self.widths)

    def finish(self, max_bad_rate: float) -> dict[str, int] | None:
        """Write the index if all files exist.

        Returns:
            Numbers of `images`, `regions` and `skipped`; None while other ranks are at work.

        Raises:
            DataError: too many images were skipped; the files are kept.
        """
        if not all(map(self._is_done, range(self.shards))):
            return None
        counter = RecordCounter(max_bad_rate, "--max-bad-rate")
        counter.read["the image list"] = self.images
        skipped: list[Skipped] = []
        for shard in range(self.shards):
            with ShardReader(shard_path(self.folder, shard)) as reader:
                skipped += reader.skipped()
        counter.bad["the image list"] = len(skipped)
        if skipped:
            counter.check(1, f"{skipped[-1].image_id}: {skipped[-1].reason}")
        self._remove_leftovers(".regions-*.tmp")
        return write_index(self.folder, self.shards, self.widths, self.names, self.label_score)

    def _remove_leftovers(self, pattern: str) -> None:
        """Delete temporary files of killed processes."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)
