"""Two files, a line of the one for each line of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from dist_s2s import UserError, counted
from dist_s2s.text.inputs.block import BadLine, Input, Parsed
from dist_s2s.text.inputs.lines import Lines, single_lines
from dist_s2s.text.inputs.packed import PackedFile

_BLOCK_LINES = 20_000


@dataclass(frozen=True, slots=True)
class ParallelBlock:
    """As many lines of each file."""

    source: Lines
    target: Lines

    def parse(self) -> Parsed:
        """Put the lines side by side."""
        parsed = Parsed()
        for index, (source, target) in enumerate(zip(self.source.decode(), self.target.decode(), strict=True)):
            if isinstance(source, BadLine) or isinstance(target, BadLine):
                parsed.bad += [line for line in (source, target) if isinstance(line, BadLine)]
            elif not source.strip():
                parsed.bad.append(BadLine(self.source.file, self.source.place(index), "has an empty source"))
            elif not target.strip():
                parsed.bad.append(BadLine(self.target.file, self.target.place(index), "has an empty target"))
            else:
                parsed.pairs.append((source.replace("\t", " "), target.replace("\t", " ")))
        return parsed


def parallel_input(source: PackedFile, target: PackedFile) -> Input:
    """Return the reader of two files of as many lines."""
    description = f"{source} and {target}: parallel files, by the comma between them"
    return Input([source.path, target.path], description, partial(_blocks, source, target))


def _blocks(source_file: PackedFile, target_file: PackedFile) -> Iterator[ParallelBlock]:
    """Yield as many lines of both.

    Raises:
        UserError: one has more lines.
    """
    files = (str(source_file), str(target_file))
    with source_file.reading() as source_stream, target_file.reading() as target_stream:
        sources, targets = single_lines(source_stream, files[0]), single_lines(target_stream, files[1])
        first = 1
        while True:
            source, target = list(islice(sources, _BLOCK_LINES)), list(islice(targets, _BLOCK_LINES))
            if len(source) != len(target):
                counts = [first - 1 + len(source) + _count(sources), first - 1 + len(target) + _count(targets)]
                raise UserError(
                    f"{files[0]} has {counted(counts[0], 'line')}, but {files[1]} has {counts[1]:,}: parallel files "
                    "have a line for each line of the other"
                )
            if not source:
                return
            yield ParallelBlock(Lines(files[0], first, b"\n".join(source)), Lines(files[1], first, b"\n".join(target)))
            first += len(source)


def _count(lines: Iterator[bytes]) -> int:
    return sum(1 for _ in lines)
