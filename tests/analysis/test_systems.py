"""Systems that an evaluation compares: what they cannot do is told before the work."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.analysis.systems import System, check_systems
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search_choice import SearchChoice


def test_a_run_that_cannot_be_searched_so_is_named(saved_run: Path) -> None:
    translator = load_translator(saved_run, Ranks.alone())
    first, other = System("first", saved_run, None), System("other", saved_run, None)
    check_systems([first, other], translator, SearchChoice(2, None, None))
    check_systems([System("lines", saved_run, ["a"])], translator, SearchChoice(1000, None, None))
    with pytest.raises(UserError, match=r"^beam_size is 1000, but there are only \d+ target tokens"):
        check_systems([first], translator, SearchChoice(1000, None, None))
    with pytest.raises(UserError, match=r"^other: beam_size is 1000, but there are only \d+ target tokens"):
        check_systems([System("lines", None, ["a"]), other], None, SearchChoice(1000, None, None))


def test_all_members_of_an_ensemble_are_looked_at(saved_run: Path) -> None:
    translator, blind = (load_translator(saved_run, Ranks.alone()) for _ in range(2))
    blind.config = Config.model_validate({"model": {"attention": "none"}})
    translator.others = [blind]
    systems = [System("both", saved_run, None)]
    check_systems(systems, translator, SearchChoice(2, None, None))
    with pytest.raises(UserError, match="coverage_penalty goes by attention, which this run does not have"):
        check_systems(systems, translator, SearchChoice(2, None, None, others={"coverage_penalty": 0.1}))
    with pytest.raises(UserError, match="--replace_unknown copies what the decoder of one run looks at"):
        check_systems(systems, translator, SearchChoice(2, None, None, replace_unknown=True))
    lone = [System("lines", None, ["a"]), System("run", saved_run, None)]
    check_systems(lone, None, SearchChoice(2, None, None, replace_unknown=True))
