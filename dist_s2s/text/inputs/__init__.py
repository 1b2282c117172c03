"""Sentence pairs from files of many forms, each in a module of its own; `open_input` recognises the form."""

from dist_s2s.text.inputs.block import BadLine, Block, Input, Pair, Parsed
from dist_s2s.text.inputs.reading import BadLines, read_inputs
from dist_s2s.text.inputs.recognise import SEPARATOR, open_input, open_inputs, split_inputs

__all__ = [
    "SEPARATOR",
    "BadLine",
    "BadLines",
    "Block",
    "Input",
    "Pair",
    "Parsed",
    "open_input",
    "open_inputs",
    "read_inputs",
    "split_inputs",
]
