"""The short way through lines that are all pairs."""

from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from dist_s2s.text.inputs.delimited import Columns, TsvBlock
from dist_s2s.text.inputs.lines import Lines


@given(st.text(alphabet="aé\t\t\n\n\r \u0085").map(str.encode) | st.binary())
@example(b"a\tb\nc\td")
@example(b"a\tb\r\nc\td\r")
@example(b"a\tb\n \td")
@example(b"a\tb\tc\nd")
@example(b"a\tb\n\xff\td")
def test_lines_that_are_all_pairs_are_read_as_any_others(data: bytes) -> None:
    block = TsvBlock(Lines("file", 1, data), Columns(0, 1, 2))
    with mock.patch.object(Lines, "in_two", return_value=None):
        expected = block.parse()
    assert block.parse() == expected
