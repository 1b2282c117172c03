"""From patterns and words to sentences: which entries fill which slots, what goes together, and how much is made."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dist_s2s.text.phrasebook import lexicon
from dist_s2s.text.phrasebook.entries import Activity, Entry, Noun, Phrase, Quantity, Routine
from dist_s2s.text.phrasebook.patterns import PATTERNS

Filled = dict[str, Any]  # the entry in each slot; patterns read its attributes by name, so it stays untyped


@dataclass(frozen=True, slots=True)
class Sentence:
    """One pair. `pattern` is the line it was made from; `composition` is what it combines, empty if nothing."""

    source: str
    target: str
    pattern: str
    composition: frozenset[str]


def digest(text: str) -> int:
    """Return 64 bits that depend on the text alone, in every process and Python version, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def sentences() -> Iterator[Sentence]:
    """Yield every sentence of the phrasebook, pattern by pattern."""
    composition: list[str] = []
    most = 0
    for line in PATTERNS.strip().splitlines():
        if line.startswith("="):
            _, slots, number = line.split("=")
            composition, most = slots.split(), int(number)
        else:
            yield from _sentences_of(line, composition, most)


def _sentences_of(line: str, composition: Sequence[str], most: int) -> Iterator[Sentence]:
    """Yield at most `most` sentences of one pattern.

    What fewer than two slots of `composition` hold is no combination that could be held out.
    """
    chinese, english = line.split(" | ")
    names = list(dict.fromkeys(re.findall(r"{(\w+)", chinese)))
    combined = [name for name in composition if name in names]
    drawn = 0
    for filled in _combinations(line, names, most):
        if drawn == most:
            return
        if not _goes_together(filled, question=chinese.endswith("？")):
            continue
        drawn += 1
        combination = frozenset(filled[name].zh for name in combined) if len(combined) > 1 else frozenset()
        source = chinese.format(**filled)
        target = english.format(**filled, **_agreement(filled))
        yield Sentence(source, target[0].upper() + target[1:], line, combination)


def _combinations(line: str, names: Sequence[str], most: int) -> Iterator[Filled]:
    """Yield ways to fill the slots, each once, in an order given by hash: all of them if they are few."""
    sizes = [len(SLOTS[name]) for name in names]
    for number in _numbers(line, math.prod(sizes), most):
        filled = {}
        for name, size in zip(names, sizes, strict=True):
            number, position = divmod(number, size)
            filled[name] = SLOTS[name][position]
        yield filled


def _numbers(seed: str, total: int, most: int) -> Iterator[int]:
    """Yield numbers below `total`, each once, in an order given by hash. Only if they are few are all yielded."""
    if total <= 2 * most:
        yield from sorted(range(total), key=lambda number: digest(f"{seed} {number}"))
        return
    seen: set[int] = set()  # drawn one by one instead, since there may be a million
    for draw in range(total):
        number = digest(f"{seed} {draw}") % total
        if number not in seen:
            seen.add(number)
            yield number


def _goes_together(filled: Filled, question: bool) -> bool:
    """Return whether the entries make a natural sentence together, by the rules for each pair of slots."""
    subject: Any = filled.get("s")
    other: Any = filled.get("x")
    noun: Any = filled["q"].noun if "q" in filled else filled.get("n", filled.get("thing"))
    look: Any = filled.get("look", filled.get("size"))
    return not (
        (question and subject and subject.zh.startswith("我"))  # one seldom asks others about oneself and one's family
        or (subject and other and not _two_people(subject, other))
        or ("here" in filled and filled["here"] == filled["there"])
        or ("p" in filled and filled["p"].zh not in filled["a"].places)
        or ("r" in filled and "h" in filled and filled["h"].tags not in filled["r"].hours.split())
        or ("age" in filled and "y" not in subject.tags)
        or (subject and subject.zh == "孩子们" and any(str(entry) in _FOR_ADULTS for entry in filled.values()))
        or ("job" in filled and "j" not in subject.tags)
        or ("month" in filled and "们" in filled["o"].zh)
        or ("spot" in filled and noun.kind not in filled["spot"].tags)
        or (look and noun.kind not in look.tags)
    )


_FOR_ADULTS = {"工作", "上班", "下班"}


def _two_people(subject: Any, other: Any) -> bool:
    """Return whether neither is part of the other: not `he knows him`, `we know me`, `they know him`."""
    together = {subject.zh, other.zh}
    return len(together) == 2 and together not in ({"我", "我们"}, {"他", "他们"}, {"她", "他们"})


def _agreement(filled: Filled) -> dict[str, str]:
    """Return the English forms that depend on the subject: `present` (likes, like), `role` (a teacher, teachers)."""
    forms = {}
    if "s" in filled:
        for entry in filled.values():
            if isinstance(entry, Activity | Routine):
                forms["present"] = entry.third if filled["s"].third else entry.habit
        if "job" in filled:
            forms["role"] = filled["job"].many if filled["s"].plural else filled["job"].one
    return forms


def _quantities(nouns: Sequence[Noun], most: int) -> list[Quantity]:
    """Each noun in every number from one to `most`. Before a measure word, two is 两."""
    return [
        Quantity(f"{count} {noun.cl} {noun}", noun.one, "is", noun)
        if count.en == "one"
        else Quantity(f"{count} {noun.cl} {noun}", f"{count.en} {noun.many}", "are", noun)
        for noun in nouns
        for count in lexicon.PHRASES["count"][:most]
    ]


def _of_kind(kinds: str) -> list[Noun]:
    return [noun for noun in lexicon.NOUNS["thing"] + lexicon.NOUNS["serving"] if noun.kind in kinds]


def _tagged(entries: Sequence[Any], tag: str) -> list[Entry]:
    return [entry for entry in entries if tag in entry.tags]


SLOTS: dict[str, Sequence[Entry]] = {
    **lexicon.PEOPLE,
    **lexicon.ACTIVITIES,
    **lexicon.PHRASES,
    **lexicon.ROUTINES,
    **lexicon.OWNERS,
    **lexicon.NOUNS,
    **lexicon.ADJECTIVES,
    "x": _tagged(lexicon.PEOPLE["s"], "f"),
    "k": _tagged(lexicon.ACTIVITIES["a"], "s"),
    "e": _tagged(lexicon.ACTIVITIES["a"], "e"),
    "l": _tagged(lexicon.PHRASES["t"], "l"),
    "i": _tagged(lexicon.PHRASES["t"], "i"),
    "lasting": _tagged(lexicon.ADJECTIVES["j"], "l"),
    "passing": _tagged(lexicon.ADJECTIVES["j"], "p"),
    "upset": _tagged(lexicon.ADJECTIVES["j"], "u"),
    "goal": [*lexicon.PHRASES["site"], Phrase("学校", "school")],
    "here": lexicon.PHRASES["site"],
    "there": lexicon.PHRASES["site"],
    "h": [Phrase(f"{hour} 点", f"{hour.en} o'clock", hour.zh) for hour in lexicon.PHRASES["count"]]
    + [Phrase(f"{hour} 点 半", f"half past {hour.en}", hour.zh) for hour in lexicon.PHRASES["count"]],
    "n": _of_kind("stfva"),
    "ware": [noun for noun in _of_kind("s") if noun.zh not in ("手机", "电脑")],
    "q": _quantities(lexicon.NOUNS["thing"], 6),
    "own": _quantities(_of_kind("ste"), 10) + _quantities(_of_kind("fva"), 4),
    "buy": _quantities(_of_kind("ste"), 10) + _quantities(_of_kind("fv"), 2),
    "gift": _quantities(_of_kind("ste"), 3),
    "drink": _quantities(_of_kind("d"), 6),
    "dish": _quantities(_of_kind("m"), 4),
    "order": _quantities(lexicon.NOUNS["serving"], 4),
}
