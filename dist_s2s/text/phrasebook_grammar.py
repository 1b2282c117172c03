"""From patterns and lexicon to sentences: which entries fill which slots, what fits what, and how much is kept."""

import hashlib
import itertools
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dist_s2s.text import phrasebook_lexicon as lexicon
from dist_s2s.text import phrasebook_patterns as patterns
from dist_s2s.text.phrasebook_entries import Activity, Entry, Noun, Person, Routine

Slots = Mapping[str, Sequence[Entry]]
Filled = dict[str, Any]  # a pattern reads attributes of its entries by name, so they stay untyped


@dataclass(frozen=True, slots=True)
class Sentence:
    """One pair. `pattern` is the line it was made from; `composition` what it combines, empty if nothing."""

    source: str
    target: str
    pattern: str
    composition: str


@dataclass(frozen=True)
class Family:
    """A table of patterns, `Chinese | English` a line, and the entries that fill their slots.

    `composition` names the slots whose combination may be held out; a pattern that has fewer than two of them combines
    nothing, and its sentences are for training only. `share` of the possible sentences is kept, by
    hash: the product of the slots is far larger than a demonstration needs.
    """

    table: str
    slots: Slots
    composition: tuple[str, ...] = ()
    share: float = 1.0
    fits: Callable[[Filled], bool] = lambda filled: True


def digest(text: str) -> int:
    """Return 64 bits that depend on the text alone, in every process and Python version, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def sentences(family: Family) -> Iterator[Sentence]:
    """Yield the family's sentences, in the order of its tables."""
    limit = int(family.share * 2**64)
    for line in family.table.strip().splitlines():
        chinese, english = line.split(" | ")
        names = list(dict.fromkeys(_slot_names(chinese)))
        combined = [name for name in family.composition if name in names]
        for entries in itertools.product(*(family.slots[name] for name in names)):
            source_key = f"{chinese} {' '.join([entry.zh for entry in entries])}"
            if digest(source_key) >= limit:
                continue
            filled: Filled = dict(zip(names, entries, strict=True))
            if not (_may_ask(filled, chinese) and family.fits(filled)):
                continue
            composition = " + ".join(filled[name].zh for name in combined) if len(combined) > 1 else ""
            _agree(filled)
            target = english.format(**filled)
            yield Sentence(chinese.format(**filled), target[0].upper() + target[1:], line, composition)


def _slot_names(pattern: str) -> list[str]:
    return [field.partition(".")[0] for _, field, _, _ in string.Formatter().parse(pattern) if field]


def _may_ask(filled: Filled, chinese: str) -> bool:
    """One seldom asks about oneself: 我 and 我们 are no subjects of questions."""
    return not (chinese.endswith("？") and "s" in filled and filled["s"].first)


def _agree(filled: Filled) -> None:
    """Add the English forms that depend on the subject: `present` (likes, like) and `role` (a teacher, teachers)."""
    subject = filled.get("s")
    for entry in list(filled.values()):
        if isinstance(entry, Activity | Routine) and isinstance(subject, Person):
            filled["present"] = entry.third if subject.third else entry.habit
    if "job" in filled:
        filled["role"] = filled["job"].many if filled["s"].plural else filled["job"].one


def _different_people(filled: Filled) -> bool:
    """Return whether subject and other person are two: not `he knows him`, nor `we know me`."""
    subject, other = filled["s"], filled["x"]
    overlap = (subject.first and other.first) or {subject.zh, other.zh} in ({"他", "他们"}, {"她", "他们"})
    return subject.zh != other.zh and not overlap


def _different_sites(filled: Filled) -> bool:
    return bool(filled["here"].zh != filled["there"].zh)


def _suits_place(filled: Filled) -> bool:
    return filled["p"].zh in filled["a"].places


def _suits_hour(filled: Filled) -> bool:
    return "h" not in filled or filled["h"].tags in filled["r"].hours.split()


def _suits_spot(filled: Filled) -> bool:
    """Return whether the thing may be there: its kind is among the tags of the spot."""
    noun: Noun = filled["n"] if "n" in filled else filled["q"].noun
    return noun.kind in filled["spot"].tags


def _suits_look(filled: Filled) -> bool:
    return filled["n"].kind in filled["look" if "look" in filled else "size"].tags


_WHEN: Slots = {"habit": lexicon.HABITS, "past": lexicon.PAST, "future": lexicon.FUTURE}
_WHO: Slots = {"s": lexicon.PEOPLE, "x": lexicon.FRIENDS, **_WHEN}
_DO: Slots = {"a": lexicon.ACTIVITIES, "often": lexicon.OFTEN, "p": lexicon.PLACES, **_WHO}
_THINGS: Slots = {"d": lexicon.POINTERS, "o": lexicon.OWNERS, "n": lexicon.BELONGINGS, "spot": lexicon.SPOTS}

FAMILIES = [
    Family(patterns.ACTIONS, _DO, ("s", "a"), 0.15),
    Family(patterns.SOMEWHERE, _DO, ("s", "a"), 0.2, _suits_place),
    Family(patterns.TOGETHER, _DO, ("s", "a"), 0.05, _different_people),
    Family(patterns.WHO, _DO, ("a", "past", "future", "habit")),
    Family(patterns.CAN, {"k": lexicon.SKILLS, **_WHO}, ("s", "k"), 0.5),
    Family(patterns.TRIED, {"e": lexicon.TASTES, **_WHO}, ("s", "e"), 0.5),
    Family(patterns.LIKES, {"t": lexicon.TOPICS, **_WHO}, ("s", "t"), 0.5),
    Family(patterns.LOVES, {"l": lexicon.LOVED, **_WHO}, ("s", "l")),
    Family(patterns.INTERESTS, {"i": lexicon.INTERESTING, **_WHO}, ("s", "i")),
    Family(patterns.ACQUAINTANCES, _WHO, ("s", "x"), 0.2, _different_people),
    Family(patterns.TRIPS, {"d": lexicon.DESTINATIONS, "v": lexicon.VEHICLES, **_WHO}, ("s", "d"), 0.1),
    Family(patterns.TRAVELS, {"c": lexicon.CITIES, **_WHO}, ("s", "c"), 0.5),
    Family(
        patterns.HOURS, {"r": lexicon.ROUTINES, "h": lexicon.HOURS, **_WHO}, ("s", "r", "h"), 0.3, _suits_hour
    ),
    Family(patterns.BEING, {"j": lexicon.FEELINGS, **_WHO}, ("s", "j"), 0.7),
    Family(
        patterns.COMPARING,
        {"lasting": lexicon.LASTING, **_WHO},
        ("s", "x", "lasting"),
        0.2,
        _different_people,
    ),
    Family(
        patterns.FEELING,
        {**_WHO, "passing": lexicon.PASSING, "past": lexicon.PAST[:4]},
        ("s", "passing"),
        0.3,
    ),
    Family(patterns.WORKING, {"s": lexicon.ADULTS, "job": lexicon.JOBS}, ("s", "job"), 0.5),
    Family(patterns.AGES, {"s": lexicon.YOUNG, "age": lexicon.AGES}, ("s", "age"), 0.7),
    Family(patterns.OWNING, {"q": lexicon.POSSESSIONS, **_WHO}, ("s", "q"), 0.1),
    Family(patterns.LACKING, {"n": lexicon.BELONGINGS, **_WHO}, ("s", "n"), 0.4),
    Family(patterns.BUYING, {"q": lexicon.PURCHASES, **_WHO}, ("s", "q"), 0.05),
    Family(patterns.GIVING, {"q": lexicon.PRESENTS, **_WHO}, ("s", "x", "q"), 0.01, _different_people),
    Family(patterns.DRINKING, {"q": lexicon.DRINKS, **_WHO}, ("s", "q"), 0.2),
    Family(patterns.DINING, {"q": lexicon.DISHES, **_WHO}, ("s", "q"), 0.2),
    Family(patterns.ORDERING, {"q": lexicon.DRINKS + lexicon.DISHES, **_WHO}, ("x", "q"), 0.5),
    Family(patterns.THERE, {"q": lexicon.QUANTITIES, **_THINGS}, ("spot", "q"), 0.3, _suits_spot),
    Family(patterns.THERE_NONE, {**_THINGS, "n": lexicon.NOUNS}, ("spot", "n"), 1.0, _suits_spot),
    Family(patterns.LYING, _THINGS, ("o", "n", "spot"), 0.3, _suits_spot),
    Family(patterns.OWNED, _THINGS, ("d", "o", "n"), 0.5),
    Family(
        patterns.DESCRIBED,
        {**_THINGS, "look": lexicon.QUALITIES, "size": lexicon.SIZES},
        ("d", "o", "n", "look", "size"),
        0.4,
        _suits_look,
    ),
    Family(
        patterns.PRICED, {**_THINGS, "n": lexicon.CHEAP, "price": lexicon.PRICES}, ("d", "n", "price"), 0.5
    ),
    Family(
        patterns.MAP,
        {"here": lexicon.SITES, "there": lexicon.SITES, "side": lexicon.SIDES},
        ("here", "there"),
        0.5,
        _different_sites,
    ),
    Family(
        patterns.WEATHER,
        {"c": lexicon.CITIES, "w": lexicon.WEATHER, "rain": lexicon.RAIN, **_WHEN},
        ("c", "w", "rain", "past", "future"),
        0.8,
    ),
    Family(patterns.BIRTHDAYS, {"month": lexicon.MONTHS, **_THINGS}, ("o", "month")),
    Family(
        patterns.CALENDAR,
        {"weekday": lexicon.WEEKDAYS, "h": lexicon.HOURS, "site": lexicon.SITES, "fixed": lexicon.FIXED},
    ),
]
