"""What a translator does not do: read a sentence twice, or write what is no word."""

from pathlib import Path

import pytest
import torch

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.models.sampling import SamplingOptions
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.search.sampling import Sampling
from dist_s2s.translation.translator import Translator


def test_a_sentence_is_encoded_once(saved_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load_translator(saved_run, Ranks.alone())
    encoded, sentences = list[str](), ["我们看见猫。", "", "他们看见猫。"]
    encode = TextSide._encode_words

    def count(side: TextSide, words: list[str]) -> list[list[int]]:
        encoded.extend(words)
        return encode(side, words)

    monkeypatch.setattr(TextSide, "_encode_words", count)
    translator.translate(sentences)
    assert sorted(encoded) == sorted(sentences)


@pytest.mark.parametrize("output", ["replicated", "sharded"])
@pytest.mark.parametrize("sampling", [None, Sampling(SamplingOptions(3, temperature=5.0))])
def test_ids_that_have_no_word_yet_are_never_chosen(output: str, sampling: Sampling | None) -> None:
    vocabulary = DynamicVocabulary(12)
    vocabulary.update({"we": 3, "see": 2, "it": 1})
    side = TextSide(make_tokenizer("whitespace"), vocabulary)
    config = Config.model_validate({"model": {"embedding_dim": 4, "hidden_size": 6, "output": output}})
    translator = Translator(config, side, side, Ranks.alone())
    with torch.no_grad():
        for number in range(len(vocabulary), vocabulary.num_ids):
            if output == "replicated":
                translator.core.output.bias[number] = 99.0
            else:
                translator.tables["output_bias"].weight[number] = 99.0
    options = SearchOptions(3, length_factor=0.0, extra_length=9, sampling=sampling)
    found = translator.search_n_best(["we see it", "it"], 3, options)
    assert [len(each) for each in found] == [3, 3]
    assert all(number < len(vocabulary) for each in found for one in each for number in one.ids)
