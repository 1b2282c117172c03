"""What a process keeps: freed memory, so that a block that is needed again costs no page faults, and products."""

import os
import platform
import resource

import pytest
import torch

from dist_s2s.distributed.memory import keep_compiled_products, keep_freed_memory
from tests import forked

_SIZES = (3_000_000, 2_990_000, 3_010_000, 2_700_000)  # numbers of a block, some 12 MB each, as in steps of a training


def faults_of_a_round() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in _SIZES * 3:
        first = torch.ones(size)
        second = (first + first * 2).exp()
        del first
        second[: size // 2].add(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def keep() -> None:
    torch.set_num_threads(1)
    without = faults_of_a_round()
    assert keep_freed_memory()
    faults_of_a_round()
    assert faults_of_a_round() < without / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_blocks_are_there_again() -> None:
    process = forked.start(keep, ())
    process.join()
    assert process.exitcode == 0


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()


def test_the_environment_says_how_many_products_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    keep_compiled_products()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    keep_compiled_products()
    assert os.environ[name] == "16384"
