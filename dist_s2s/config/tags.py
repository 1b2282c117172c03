"""Tags, such as `<2en>`: tokens that a source sentence may begin with."""

import re
from typing import Annotated

from pydantic import BeforeValidator

SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")  # the first tokens of every vocabulary


def _tags_from_text(value: object) -> object:
    """Return a list from the words of a text, as the command line gives it; ``[]`` has none.

    Raises:
        ValueError: if a tag could be taken for a word or a special token, or is given twice.
    """
    tags = value
    if isinstance(value, str):
        tags = [word for word in re.split(r"[\s,]+", value) if word and value != "[]"]
    if not isinstance(tags, list | tuple):
        return tags
    for number, tag in enumerate(map(str, tags)):
        if not re.fullmatch(r"[!-~]+", tag) or tag[0].isalnum() or tag[-1].isalnum():
            raise ValueError(
                f"a tag is ASCII without spaces, and begins and ends with neither letter nor digit, as <2en> does, but "
                f"this is {tag!r}"
            )
        if tag in SPECIALS or re.fullmatch(r"<0x[0-9A-F]{2}>", tag):
            raise ValueError(f"{tag} has another meaning; choose another tag")
        if tag in tags[:number]:
            raise ValueError(f"{tag} is given twice")
    return tags


Tags = Annotated[tuple[str, ...], BeforeValidator(_tags_from_text)]
