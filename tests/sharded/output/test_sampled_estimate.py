"""What sampled softmax is on average: its denominator is right, and its gradient the better the more samples."""

import math

import pytest
import torch

from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from tests.sharded.reference import random_rows
from tests.sharded.sampled_reference import EVERY_CLASS, Case, H, V, gradients, run_steps, tables, targets


def test_the_estimate_of_the_denominator_is_unbiased():
    table, bias = tables()
    hidden, target = random_rows((1, H), seed=3), torch.tensor([2])
    logits = (hidden @ table.weight.t() + bias.weight.t()).detach()[0]
    for settings in ({}, {"frequencies": torch.arange(1, V + 1)}):
        loss = SampledSoftmaxLoss(table, bias, num_samples=8, **settings)
        with torch.no_grad():
            estimates = torch.stack([(loss(hidden, target) + logits[2]).exp() for _ in range(2000)])
        error = estimates.std() / math.sqrt(len(estimates))
        assert 0 < error < 0.1 * logits.exp().sum()
        assert abs(estimates.mean() - logits.exp().sum()) < 4 * error


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_expected_gradient_approaches_the_exact_one(smoothing: float):
    """Of hidden states, table and bias; each error is relative to the exact gradient."""
    draws, target = 300, targets(1)[0]
    *_, exact = run_steps(None, [Case(target, {"num_samples": EVERY_CLASS, "label_smoothing": smoothing})])
    errors = []
    for num_samples in (8, 32, 128, 512):
        case = Case(target, {"num_samples": num_samples, "label_smoothing": smoothing})
        loss = case.loss()
        means = [torch.zeros_like(gradient) for gradient in exact]
        for _ in range(draws):
            for mean, gradient in zip(means, gradients(loss, case, 0), strict=True):
                mean += gradient / draws
        errors.append([float((mean - right).norm() / right.norm()) for mean, right in zip(means, exact, strict=True)])
    for of_part in zip(*errors, strict=True):
        assert of_part[0] > of_part[1] > of_part[2] > of_part[3]
        assert of_part[0] > 0.05
        assert of_part[3] < 0.15
    assert errors[3][1] < 0.06  # of hidden states
