"""The output of a job: one line for each caption, in order, continuing after existing lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unimo.augment.corpus import Caption, CaptionCorpus
from unimo.augment.output import ResumableWriter
from unimo.jobs import Progress, Shard

Line = dict[str, Any]
LinesOf = Callable[[Sequence[Caption]], Iterable[Line]]
"""Makes the lines of some captions, in their order."""


def write_lines(
    corpus: CaptionCorpus,
    out: Path,
    job: Mapping[str, Any],
    shard: Shard,
    progress: Progress,
    doing: str,
    lines_of: LinesOf,
    together: int = 1,
) -> None:
    """Write the line of every caption of a shard; samples without readable text get a line that says so.

    Args:
        corpus: the captions.
        out: the jsonl file.
        job: all settings that determine the lines.
        shard: part of the captions to process.
        progress: makes the progress bar.
        doing: description of the progress bar.
        lines_of: makes the lines.
        together: number of captions passed to it at a time.

    Raises:
        DataError: the file belongs to another job.
    """
    with (
        ResumableWriter(out, {**job, "shard": str(shard)}) as writer,
        progress(doing, shard.count(len(corpus))) as bar,
    ):
        bar.update(writer.done)
        for chunk in _chunks(corpus, shard, writer.done, together):
            lines = iter(lines_of([caption for _, caption in chunk if caption is not None]))
            for number, caption in chunk:
                skipped = {"id": f"#{number}", "skipped": "no readable text"}
                writer.write(skipped if caption is None else next(lines))
            bar.update(len(chunk))


def _chunks(
    corpus: CaptionCorpus, shard: Shard, done: int, together: int
) -> Iterator[list[tuple[int, Caption | None]]]:
    chunk: list[tuple[int, Caption | None]] = []
    for number in shard.numbers(len(corpus), done):
        chunk.append((number, next(corpus.readable(number))[1]))
        if len(chunk) == together:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
