"""Imports run downward only and without a circle, and nothing unpickles: read from the source of dist_s2s."""

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
# Which package may import which: those of a line the lines below, never each other or a line above.
LAYERS: dict[str, list[tuple[str, ...]]] = {
    "dist_s2s": [
        (
            *("train", "prepare", "translate", "evaluate", "score", "average", "probe", "serve"),
            *("embeddings", "align", "evolution", "export", "watch", "report", "estimate"),
        ),
        ("cli",),
        ("training", "serving"),
        ("reports",),
        ("preparation", "analysis"),
        ("translation",),
        ("text", "models", "cost"),
        ("storage",),
        ("distributed", "config"),
        ("sharded",),
    ],
    "dist_s2s.translation": [
        ("search_choice", "scores"),
        ("unknown_words", "runs"),
        ("attention",),
        ("translator",),
        ("search",),
        ("predictor", "model"),
        ("output",),
        ("tables", "batching"),
    ],
    "dist_s2s.sharded": [
        ("companions",),
        ("output",),
        ("optim", "clip", "averaging"),
        ("tables",),
        ("exchange",),
        ("transport",),
        ("rows", "eager"),
    ],
}
# Packages that could be lifted out, and all that they import beside themselves and the standard library.
STAND_ALONE = {
    "dist_s2s.sharded": ("torch",),
    "dist_s2s.models": ("torch",),
    "dist_s2s.text": ("torch", "numpy", "regex", "sentencepiece", "jieba", "dist_s2s.UserError", "dist_s2s.counted"),
    "dist_s2s.config": ("pydantic", "pydantic_core", "yaml", "dist_s2s.UserError"),
}
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


def child(name: str, package: str) -> str | None:
    """The part of a package that a dotted name lies in: "text" for dist_s2s.text.corpus in dist_s2s."""
    return name.removeprefix(f"{package}.").split(".")[0] if within(name, package) and name != package else None


def layering_faults(module: str, source: str) -> list[str]:
    """The imports that this module's place in the layout forbids, in functions and under TYPE_CHECKING too."""
    faults = []
    for name in imported_names(module, source).values():
        alone = next((package for package in STAND_ALONE if within(module, package)), None)
        if alone and not within(name, alone, *STAND_ALONE[alone], *sys.stdlib_module_names):
            faults.append(f"{module} imports {name}, but {alone} stands alone")
            continue
        for package, layers in LAYERS.items():
            levels = {part: level for level, parts in enumerate(layers) for part in parts}
            here, there = child(module, package), child(name, package)
            if here in levels and there in levels and here != there and levels[here] >= levels[there]:
                faults.append(f"{module} imports {name}, but {package}.{there} does not lie below {package}.{here}")
    return faults


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """For each module, the modules of ``sources`` that it names in an import; a package is its __init__."""
    modules = {module.removesuffix(".__init__"): module for module in sources}
    graph: dict[str, set[str]] = {}
    for name, module in modules.items():
        targets = set()
        for imported in imported_names(module, sources[module]).values():
            parts = imported.split(".")
            prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            targets.add(next((prefix for prefix in prefixes if prefix in modules), name))
        graph[name] = targets - {name}
    return graph


def circles(sources: dict[str, str]) -> list[list[str]]:
    """Groups of two or more modules that import each other, each sorted."""
    graph = import_graph(sources)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph[waiting.pop()] - found:
                found.add(target)
                waiting.append(target)
        return found

    below = {module: reachable(module) for module in graph}
    groups = {
        frozenset(other for other in below[module] if module in below[other])
        for module in graph
        if module in below[module]
    }
    return sorted(map(sorted, groups))


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


@pytest.mark.parametrize("package", LAYERS)
def test_every_part_has_its_place(package: str) -> None:
    parts = {child(module, package) for module in SOURCES} - {None, "__init__"}
    assert parts == {part for layer in LAYERS[package] for part in layer}


def test_no_modules_import_each_other() -> None:
    assert circles(SOURCES) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dist_s2s.sharded.loss", "import numpy"),
        ("dist_s2s.sharded.loss", "from dist_s2s import UserError"),
        ("dist_s2s.sharded.loss", "def f():\n    from ..text import corpus"),
        ("dist_s2s.sharded.__init__", "from .. import config"),
        ("dist_s2s.models.lstm", "from dist_s2s import sharded"),
        ("dist_s2s.models.lstm", "from dist_s2s import UserError"),
        ("dist_s2s.text.corpus", "from dist_s2s.sharded import RowPartition"),
        ("dist_s2s.config.schema", "import torch"),
        ("dist_s2s.config.schema", "from dist_s2s.text.tokenizers import TokenizerName"),
        ("dist_s2s.storage.checkpoint", "import dist_s2s.translation.translator"),
        ("dist_s2s.translation.translator", "from dist_s2s.training.trainer import Trainer"),
        ("dist_s2s.translation.translator", "if TYPE_CHECKING:\n    from dist_s2s import training"),
        ("dist_s2s.distributed.start", "from dist_s2s.config import Config"),
        ("dist_s2s.training.run", "def f():\n    from dist_s2s.cli import command_line"),
        ("dist_s2s.cli.main", "from dist_s2s import train"),
        ("dist_s2s.evaluate", "from dist_s2s.translate import main"),
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
        ("dist_s2s.models.lstm", "from .attention import Attention\nimport torch"),
        ("dist_s2s.text.corpus", "from dist_s2s import UserError"),
        ("dist_s2s.config.loading", "import yaml\nfrom dist_s2s.config.schema import Config"),
        ("dist_s2s.storage.checkpoint", "from dist_s2s.sharded import RowPartition"),
        ("dist_s2s.train", "from dist_s2s import UserError, models, sharded, text"),
    ],
)
def test_downward_imports_are_allowed(module: str, source: str) -> None:
    assert layering_faults(module, source) == []


def test_rooms_of_a_package_have_an_order_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "dist_s2s.sharded", [("output",), ("tables",), ("rows",)])
    assert layering_faults("dist_s2s.sharded.output.top_k", "from dist_s2s.sharded.rows import runs") == []
    assert layering_faults("dist_s2s.sharded.rows.runs", "from dist_s2s.sharded import optim") == []
    assert layering_faults("dist_s2s.sharded.rows.runs", "from dist_s2s.sharded import tables") == [
        "dist_s2s.sharded.rows.runs imports dist_s2s.sharded.tables, but dist_s2s.sharded.tables does not lie below "
        "dist_s2s.sharded.rows"
    ]


@pytest.mark.parametrize(
    "closing",
    [
        "import p.a",
        "from p import a",
        "from . import a",
        "def f():\n    from p.a import name",
        "if TYPE_CHECKING:\n    from p.a import name",
    ],
)
def test_circles_are_found(closing: str) -> None:
    sources = {"p.__init__": "from p.a import name", "p.a": "from p import b", "p.b": "import p.c", "p.c": closing}
    assert circles(sources) == [["p.a", "p.b", "p.c"]]
    assert circles(sources | {"p.c": "import os"}) == []
    assert circles(sources | {"p.c": "from p import name"}) == [["p", "p.a", "p.b", "p.c"]]


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
