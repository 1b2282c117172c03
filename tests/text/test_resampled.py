"""BPE-dropout: other subwords of the same text, a pure function of seed, epoch and example."""

from dist_s2s.text.batches import rank_batch
from dist_s2s.text.building import build_sides
from dist_s2s.text.corpus import Corpus, ExampleList, encode_pairs
from dist_s2s.text.resampled import ResampledCorpus
from dist_s2s.text.side import SideSettings
from dist_s2s.text.vocabulary import UNK

PAIRS = [
    ("<2en> the teacher liked the moon", "the teacher liked the train 猫"),
    ("<2en> <2en> a teacher saw the teacher", "the teacher"),
] * 20
SETTINGS = SideSettings("bpe", tags=("<2en>",))
SOURCE, TARGET = build_sides(SETTINGS, SideSettings("bpe", reads_tags=False), PAIRS)
CORPUS, _ = encode_pairs(PAIRS, SOURCE, TARGET, None)


def epoch(number: int, seed: int = 1, dropout: float = 0.5) -> ResampledCorpus:
    return ResampledCorpus(CORPUS, SOURCE, TARGET, dropout, seed, number)


def everything(corpus: Corpus) -> list[object]:
    return [corpus[index] for index in range(len(corpus))]


def test_the_text_and_its_tags_stay() -> None:
    resampled = epoch(0)
    for before, after in zip(CORPUS, everything(resampled), strict=True):
        assert SOURCE.decode(after.source) == SOURCE.decode(before.source)
        assert TARGET.decode(after.target) == TARGET.decode(before.target)
        assert after.source.count(4) == before.source.count(4) == 1 + (before.source[1] == 4)
        assert after.source[0] == 4
    assert resampled.lengths.tolist() == CORPUS.lengths.tolist()


def test_other_subwords_for_each_example_epoch_and_seed_and_the_same_again() -> None:
    corpora = [CORPUS, epoch(0), epoch(1), epoch(0, seed=2)]
    assert len({str(everything(corpus)) for corpus in corpora}) == 4
    assert epoch(0)[0] != epoch(0)[2]
    assert list(reversed([epoch(0)[index] for index in reversed(range(len(CORPUS)))])) == everything(corpora[1])
    assert everything(epoch(0, dropout=0.0)) == CORPUS


def test_ranks_share_a_batch_and_count_the_same_tokens() -> None:
    whole = rank_batch(epoch(3), [5, 6, 7], 0, 1)
    parts = [rank_batch(epoch(3), [5, 6, 7], rank, 2) for rank in range(2)]
    assert [part.global_target_tokens for part in parts] == [whole.global_target_tokens] * 2
    assert whole.global_target_tokens == int((whole.target_out != 0).sum())
    assert parts[1].target_out[0].tolist() == whole.target_out[1][: parts[1].target_out.size(1)].tolist()


def test_a_sentence_with_an_unknown_token_and_a_side_without_dropout_stay() -> None:
    assert SOURCE.resample([4, UNK, 300], 0.9, 1) == [4, UNK, 300]
    half = ResampledCorpus(ExampleList(CORPUS), None, TARGET, 0.9, 1, 0)
    assert half[0].source == CORPUS[0].source
    assert half[0].target != CORPUS[0].target
