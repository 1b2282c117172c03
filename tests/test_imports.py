"""Imports run downward only, and nothing unpickles: read from the source of dist_s2s."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "dist_s2s").rglob("*.py"))
}
FREE = sys.stdlib_module_names | {"torch"}
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
UNSAFE_CALLS = {
    "torch.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.full_load_all",
    "yaml.unsafe_load_all",
}


def imported_names(module: str, source: str) -> dict[str, str]:
    """Local name → full dotted name, for each import anywhere in the source of a module."""
    names = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            package = module.removesuffix(".__init__").split(".")
            up = node.level - module.endswith(".__init__")
            start = package[: len(package) - up] if node.level else []
            origin = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                names[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return names


def within(name: str, *packages: str) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def layering_faults(module: str, source: str) -> list[str]:
    """The imports that this module's place in the layout forbids."""
    faults = []
    for name in imported_names(module, source).values():
        free = name.split(".")[0] in FREE
        ours = within(name, "dist_s2s")
        if (
            (within(module, "dist_s2s.sharded") and not free and not within(name, "dist_s2s.sharded"))
            or (within(module, "dist_s2s.seq2seq") and ours and not within(name, "dist_s2s.seq2seq"))
            or (within(module, "dist_s2s.text") and within(name, "dist_s2s.sharded", "dist_s2s.seq2seq"))
        ):
            faults.append(f"{module} imports {name}")
    return faults


def unpickling_faults(module: str, source: str) -> list[str]:
    """Imports of pickle and its like, torch.load, and YAML loaders that may run code."""
    names = imported_names(module, source)
    faults = [f"{module} imports {name}" for name in names.values() if name.split(".")[0] in UNSAFE_MODULES]
    faults += [f"{module} imports {name}" for name in names.values() if name in UNSAFE_CALLS]
    tree = ast.parse(source)
    safe = {"SafeLoader", "CSafeLoader"}
    safe |= {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] in safe for base in node.bases)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        head, _, rest = ast.unparse(call.func).partition(".")
        called = names.get(head, head) + (f".{rest}" if rest else "")
        if called in UNSAFE_CALLS:
            faults.append(f"{module} calls {called}")
        if called in ("yaml.load", "yaml.load_all"):
            loaders = [keyword.value for keyword in call.keywords if keyword.arg == "Loader"] + call.args[1:2]
            if not loaders or ast.unparse(loaders[0]).split(".")[-1] not in safe:
                faults.append(f"{module} calls {called} without a SafeLoader")
    return faults


@pytest.mark.parametrize("module", SOURCES)
def test_module_keeps_the_rules(module: str) -> None:
    assert layering_faults(module, SOURCES[module]) == []
    assert unpickling_faults(module, SOURCES[module]) == []
    assert "utils" not in module.split("."), "name a module after its subject"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dist_s2s.sharded.loss", "import numpy"),
        ("dist_s2s.sharded.loss", "from dist_s2s.errors import UserError"),
        ("dist_s2s.sharded.loss", "def f():\n    from ..text import corpus"),
        ("dist_s2s.sharded.__init__", "from .. import config"),
        ("dist_s2s.seq2seq.model", "from dist_s2s import sharded"),
        ("dist_s2s.seq2seq.model", "import dist_s2s.errors"),
        ("dist_s2s.text.corpus", "from dist_s2s.sharded import RowPartition"),
    ],
)
def test_layering_faults_are_found(module: str, source: str) -> None:
    assert len(layering_faults(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "dist_s2s.sharded.loss",
            "import math, torch.nn\nfrom dist_s2s.sharded import optim\nfrom . import exchange",
        ),
        ("dist_s2s.sharded.__init__", "from .embedding import DistributedEmbedding"),
        ("dist_s2s.seq2seq.model", "from .attention import Attention\nimport numpy"),
        ("dist_s2s.text.corpus", "from dist_s2s.errors import UserError"),
        ("dist_s2s.train", "from dist_s2s import seq2seq, sharded, text"),
    ],
)
def test_downward_imports_are_allowed(module: str, source: str) -> None:
    assert layering_faults(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x', weights_only=True)",
        "from torch import load",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
        "import yaml\nyaml.unsafe_load(text)",
    ],
)
def test_unpickling_faults_are_found(source: str) -> None:
    assert len(unpickling_faults("dist_s2s.train", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nclass Strict(yaml.SafeLoader): pass\nyaml.load(text, Strict)",
        "from safetensors import torch\ntorch.load_file('x')",
    ],
)
def test_safe_loading_is_allowed(source: str) -> None:
    assert unpickling_faults("dist_s2s.train", source) == []


def test_a_mistake_in_the_configuration_is_told_before_torch_is_imported() -> None:
    code = "import sys, dist_s2s.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
