"""The device that `pytest --device` names, by default the CPU."""

import pytest
import torch


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))
