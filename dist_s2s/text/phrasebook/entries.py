"""The kinds of word that the phrasebook has.

`str(entry)` is the Chinese side, segmented by spaces; the English forms are named attributes, so that a pattern of
`grammar` can write `{a} 了` on the left and `{a.past}` on the right.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """What every entry has: its Chinese, which is also its name."""

    zh: str

    def __str__(self) -> str:
        return self.zh


@dataclass(frozen=True)
class Phrase(Entry):
    """A word or phrase with one English form: a time, a place, an adverb, a topic. `tags` say what it fits."""

    en: str
    tags: str = ""


@dataclass(frozen=True)
class Person(Entry):
    """A subject or object, and the English words that agree with it: he likes, does he, he is, he has."""

    en: str
    objective: str
    first: bool
    third: bool
    plural: bool
    be: str
    was: str
    s: str
    es: str
    do: str
    have: str
    tags: str


def person(zh: str, en: str, objective: str, number: str, tags: str) -> Person:
    """Fill in the agreement. `number` is `first`, `second`, `third`, `we` or `they`."""
    third = number == "third"
    be = {"first": "am", "third": "is"}.get(number, "are")
    return Person(
        zh,
        en,
        objective,
        first=number in ("first", "we"),
        third=third,
        plural=number in ("we", "they"),
        be=be,
        was="were" if be == "are" else "was",
        s="s" if third else "",
        es="es" if third else "",
        do="does" if third else "do",
        have="has" if third else "have",
        tags=tags,
    )


@dataclass(frozen=True)
class Activity(Entry):
    """A verb and perhaps an object. Habits take the general object (`movies`), single events the other (`a movie`)."""

    verb: str
    object: str
    habit: str
    third: str
    gerund: str
    tried: str
    base: str
    ing: str
    past: str
    places: tuple[str, ...]
    tags: str


def activity(
    verb: str, object_: str, forms: tuple[str, ...], general: str, single: str, places: str, tags: str
) -> Activity:
    """`forms` are base, third person, -ing, past, participle; `places` names the places that suit, split by spaces."""
    base, third, ing, past, participle = forms
    return Activity(
        f"{verb} {object_}".strip(),
        verb,
        object_,
        habit=f"{base} {general}".strip(),
        third=f"{third} {general}".strip(),
        gerund=f"{ing} {general}".strip(),
        tried=f"{participle} {general}".strip(),
        base=f"{base} {single}".strip(),
        ing=f"{ing} {single}".strip(),
        past=f"{past} {single}".strip(),
        places=tuple(places.split()),
        tags=tags,
    )


@dataclass(frozen=True)
class Routine(Entry):
    """What one does every day, and the hours that suit, split by spaces."""

    habit: str
    third: str
    hours: str


@dataclass(frozen=True)
class Noun(Entry):
    """A thing that can be counted, with its measure word `cl`. `kind` is one letter, explained in the lexicon."""

    cl: str
    en: str
    many: str
    kind: str

    @property
    def one(self) -> str:
        """Return the singular with its article."""
        return f"{'an' if self.en[0] in 'aeiou' else 'a'} {self.en}"


@dataclass(frozen=True)
class Quantity(Entry):
    """A number of things: 两 本 书 / two books."""

    en: str
    be: str
    noun: Noun


@dataclass(frozen=True)
class Adjective(Entry):
    """`more` is its comparative; `tags` say whom or what it fits."""

    en: str
    more: str
    tags: str


@dataclass(frozen=True)
class Owner(Entry):
    """An owner: my book, the book is mine."""

    en: str
    absolute: str
