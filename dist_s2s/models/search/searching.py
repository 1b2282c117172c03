"""Beam search over batches; with a beam of one it is greedy.

The caller supplies two functions, each called once a step, in this order. They may be collective: then every rank must
call them equally often.

- ``embed`` turns target ids [N] into rows [N, E].
- ``best_tokens`` turns the model's outputs [N, X] and a number k into the k likeliest tokens to come after each row,
  of those that may be chosen: log-probabilities [N, k], float32 or float64, falling, and int64 ids [N, k]. Where they
  are fewer than k, the other columns have log-probability -inf; their ids are ignored. k is the same on every rank.

So the caller also supplies ``all_finished``, which turns this rank's "I have finished" into the same answer on all
ranks; the search goes on until it is True. Hypotheses that have ended cost nothing: a step computes a row for each of
the others alone, and a rank that has finished goes on with a single row, which counts for nothing.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, cast

import torch
from torch import Tensor

from dist_s2s.models.protocols import AttentiveEncoderDecoder, EncodingT, StateT, Stepwise
from dist_s2s.models.search.allowed import Allowed, BestTokens
from dist_s2s.models.search.beam import Step, drop_hopeless, first_beam, grow, hypotheses_of
from dist_s2s.models.search.demands import Demands
from dist_s2s.models.search.hypothesis import Hypothesis
from dist_s2s.models.search.ranking import Ranking
from dist_s2s.models.search.rules import Rules

# Shapes: B sentences, S source positions, T target positions so far, E embedding_dim, X the model's outputs,
# K beam_size, C candidates of each hypothesis, N hypotheses that go on, of all sentences: at most B·K.

Embed = Callable[[Tensor], Tensor]
Agreement = Callable[[bool], bool]

_PER_TOKEN, _NO_RULES = Ranking(), Rules()


@torch.no_grad()
def beam_search(
    model: Stepwise[EncodingT, StateT],
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    best_tokens: BestTokens,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    beam_size: int,
    all_finished: Agreement = bool,
    *,
    n_best: int | None = None,
    ranking: Ranking = _PER_TOKEN,
    rules: Rules = _NO_RULES,
    demands: Demands | None = None,
) -> list[list[Hypothesis]]:
    """Return the hypotheses of each sentence, the best by score first: ``n_best``, or as many as there are.

    A finished hypothesis keeps its place in the beam, with its score frozen, and the search of a sentence ends when
    all of its beam is finished. A hypothesis that reaches the maximum length counts as finished.

    Args:
        n_best: how many are wanted; None: ``beam_size``. If fewer, a search ends as soon as no hypothesis that goes on
            can still be one of them, and finds what it would have found without that end.
        ranking: what scores are.
        rules: which tokens may not come.
        demands: what each sentence must have. Of a sentence with phrases, only hypotheses that no other has
            more of them than are returned; its search ends when one with all has finished and none with all goes on.
    """
    n_best = beam_size if n_best is None else n_best
    allowed = Allowed(best_tokens, rules, demands, beam_size, end_id)
    encoding, state = model.encode(source_BSE, source_lengths_B)
    beam, steps = first_beam(max_lengths_B, beam_size), list[Step]()
    sentences_N = torch.arange(len(max_lengths_B), device=max_lengths_B.device)  # of the rows of encoding and state
    rows_BK = sentences_N[:, None].expand(-1, beam_size)  # where the state before each hypothesis' last token is
    tokens_BK = torch.full_like(rows_BK, start_id)
    carried = _Carried(state, source_BSE.new_zeros(source_BSE.shape[:2], dtype=torch.float64), rows_BK[:, :0])
    while not all_finished(not bool(beam.goes_on_BK.any())):
        hypotheses_N = beam.computed()
        rows_N, sentences_before_N = rows_BK.flatten()[hypotheses_N], sentences_N
        sentences_N, last_N = hypotheses_N // beam_size, tokens_BK.flatten()[hypotheses_N]
        if not torch.equal(sentences_N, sentences_before_N):  # or else the encoding need not be copied
            encoding = encoding.select(rows_N)
        carried = carried.select(rows_N, ranking, rules)
        outputs_NX, carried = _advance(model, embed(last_N), last_N, carried, encoding, ranking, rules)
        if ranking.coverage_penalty:
            beam = beam.covering(ranking.coverage(carried.looked_NS, source_lengths_B[sentences_N]), hypotheses_N)
        candidates = allowed.candidates(outputs_NX, hypotheses_N, carried.tokens_NT[:, 1:], len(steps))
        at_limit_B = len(steps) + 1 >= max_lengths_B
        beam, step = grow(beam, *beam.spread(*candidates, hypotheses_N), end_id, at_limit_B, ranking, allowed.banks)
        beam = drop_hopeless(beam, n_best, ranking, max_lengths_B, allowed.banks)
        steps.append(step)
        tokens_BK, rows_M = step.tokens_BK, hypotheses_N.new_zeros(beam.goes_on_BK.numel())
        rows_M[hypotheses_N] = torch.arange(len(hypotheses_N), device=hypotheses_N.device)
        rows_BK = rows_M.view_as(tokens_BK).gather(1, step.parents_BK)
    found_B = hypotheses_of(beam, steps, end_id, max_lengths_B, ranking)
    return [found[:n_best] for found in (found_B if demands is None else demands.best(found_B))]


class _Carried(NamedTuple, Generic[StateT]):
    """What each hypothesis that goes on carries from one step to the next; of what nobody reads nothing is kept."""

    state: StateT
    looked_NS: Tensor  # float64 sums of attention, for the coverage penalty
    tokens_NT: Tensor  # int64, from the start token on, for the rule of n-grams

    def select(self, rows_N: Tensor, ranking: Ranking, rules: Rules) -> "_Carried[StateT]":
        looked_NS = self.looked_NS[rows_N] if ranking.coverage_penalty else self.looked_NS
        tokens_NT = self.tokens_NT[rows_N] if rules.no_repeat_ngram else self.tokens_NT
        return _Carried(self.state.select(rows_N), looked_NS, tokens_NT)


def _advance(
    model: Stepwise[EncodingT, StateT],
    embedded_NE: Tensor,
    last_N: Tensor,
    carried: _Carried[StateT],
    encoding: EncodingT,
    ranking: Ranking,
    rules: Rules,
) -> tuple[Tensor, _Carried[StateT]]:
    """Return the model's outputs [N, X] after the last tokens, and what is carried on."""
    state, looked_NS, tokens_NT = carried
    if ranking.coverage_penalty:
        attentive = cast(AttentiveEncoderDecoder[EncodingT, StateT], model)
        outputs_NX, state, weights_NS = attentive.step_with_attention(embedded_NE, state, encoding)
        looked_NS = looked_NS + weights_NS
    else:
        outputs_NX, state = model.step(embedded_NE, state, encoding)
    if rules.no_repeat_ngram:
        tokens_NT = torch.cat((tokens_NT, last_N[:, None]), dim=1)
    return outputs_NX, _Carried(state, looked_NS, tokens_NT)
