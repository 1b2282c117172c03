"""The documents: the links, commands, files and configuration keys that they name exist, and their programs run."""

import re
from pathlib import Path

import pytest
import torch

from dist_s2s.config import KEYS
from tests.commands import ROOT, run
from tests.toy_corpus import options, write_corpus

GUIDES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
PRESENT = [
    *GUIDES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/results/README.md")),
]
DOCUMENTS = [*PRESENT, ROOT / "CHANGELOG.md"]  # which tells of what is gone as well
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    """Markdown without what is shown as code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def code_of(text: str) -> str:
    """What Markdown shows as code, a line for each piece; lines that a backslash continues are joined."""
    fences = [match[2] for match in FENCE.finditer(text)]
    indented = re.findall(r"^ {4}.*$", text, re.MULTILINE)
    inline = [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    return "\n".join([*fences, *indented, *inline]).replace("\\\n", " ")


def anchors_of(text: str) -> list[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links_of(text: str) -> list[str]:
    """Where the links and pictures lead."""
    return re.findall(r"\]\(([^()\s]+)\)", without_code(text))


def broken_links(document: Path, text: str) -> list[str]:
    """The relative links whose file or heading is missing."""
    broken = []
    for target in links_of(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        there = file.exists() and file.is_relative_to(ROOT)
        if not there or (anchor and anchor not in anchors_of(text if file == document else file.read_text("utf-8"))):
            broken.append(target)
    return broken


def missing_files(text: str) -> list[str]:
    """The files of the repository, and the modules of dist_s2s, that code or a comment names and that are missing."""
    code = code_of(text)
    comments = " ".join(re.findall(r"<!-- figures:(.*?)-->", text, re.DOTALL))
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "runs")
    named = set(re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\.(?:py|sh|md|yaml|json)\b", f"{code} {comments}"))
    commands = set(re.findall(r"-m (dist_s2s\.[\w.]*\w)", f"{code} {comments}"))
    commands |= {f"dist_s2s.{name}" for name in re.findall(r"\bdist-s2s (\w+)", code)}
    named |= {command.replace(".", "/") + ".py" for command in commands}
    return sorted(path for path in named if not (ROOT / path).exists())


def unknown_keys(text: str) -> list[str]:
    """The configuration keys that code names, and that the schema lacks."""
    code = code_of(text)
    named = set(re.findall(r"--([a-z_]+\.[a-z_]+)\b", code))
    named |= set(re.findall(rf"(?<!\S)((?:{'|'.join(SECTIONS)})\.[a-z_]+):?$", code, re.MULTILINE))
    return sorted(named - KEYS.keys() - {"section.key"})


def unknown_options(text: str) -> list[str]:
    """The other options of our commands that no source knows."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("dist_s2s", "benchmarks", "examples", "launch", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != Path(__file__).name
    )
    theirs = {"nproc_per_node", "standalone", "nnodes"}  # torchrun's
    ours = [line for line in code_of(text).splitlines() if re.search(r"dist[-_]s2s|benchmarks/\w+\.py|launch/", line)]
    named = set(re.findall(r"(?<!\S)--([a-z_]+)(?![\w.])", "\n".join(ours))) - theirs - {"config", "run_dir"}
    return sorted(name for name in named if f'"--{name}"' not in sources)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    assert broken_links(document, document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert missing_files(text) == []
    assert unknown_options(text) == []
    assert unknown_keys(text) == []


LINKS = """\
# A heading: with `code`

[a](docs/none.md) [b](#a-heading) [c](#a-heading-with-code) [d](../x) [e](https://none.example) `[f](x)`
"""
NAMES = """\
```bash
python -m dist_s2s.teach --model.outputs x --run_directory y
bash launch/test.sh
```

`python benchmarks/none.py`, `dist-s2s teach`, `dist-s2s train --data.trains
x`, `training.lerning_rate`, `training.patience`
<!-- figures: benchmarks/results/none.json -->

    bash launch/none.sh --model.outputs x
"""


def test_faults_in_documents_are_found() -> None:
    assert broken_links(ROOT / "README.md", LINKS) == ["docs/none.md", "#a-heading", "../x"]
    missing = ["benchmarks/none.py", "benchmarks/results/none.json", "dist_s2s/teach.py", "launch/none.sh"]
    assert missing_files(NAMES) == missing
    assert unknown_keys(NAMES) == ["data.trains", "model.outputs", "training.lerning_rate"]
    assert unknown_options(NAMES) == ["run_directory"]


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def snippets() -> list[tuple[str, str]]:
    """Name and source of each Python snippet of the guides."""
    found = []
    for document in GUIDES:
        sources = [match[2] for match in FENCE.finditer(document.read_text(encoding="utf-8")) if match[1] == "python"]
        found += [(f"{document.stem}-{number}", source) for number, source in enumerate(sources)]
    return found


def run_program(source: str, folder: Path, ranks: int = 1) -> str:
    """Run a program to its end, as torchrun does on several ranks, and return the output of the first."""
    file = folder / "program.py"
    file.write_text(source, encoding="utf-8")
    return run(str(file), ranks=ranks).output


THEORY = {name: source for name, source in snippets() if name.startswith("theory-")}  # checks that take no ranks
PROGRAMS = {
    name: source for name, source in snippets() if source.startswith("import ") and not name.startswith("theory")
}


@pytest.mark.parametrize(("name", "source"), snippets(), ids=[name for name, _ in snippets()])
def test_a_snippet_compiles(name: str, source: str) -> None:
    compile(source, name, "exec")


@pytest.mark.parametrize("name", THEORY)
def test_a_claim_of_the_theory_holds(name: str) -> None:
    with torch.random.fork_rng():
        exec(compile(THEORY[name], name, "exec"), {})


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("README-0", 1), *((name, 2) for name in PROGRAMS)],
    ids=["one process", *(f"{name} on 2 ranks" for name in PROGRAMS)],
)
def test_a_program_runs(name: str, ranks: int, tmp_path: Path) -> None:
    run_program(PROGRAMS[name], tmp_path, ranks)


def test_the_listener_of_the_training_guide_hears_of_steps(tmp_path: Path) -> None:
    words = options(write_corpus(tmp_path), tmp_path / "run", training__max_steps=4)
    toy = f"load_config(None, {dict(word.removeprefix('--').split('=', 1) for word in words)})"
    source = dict(snippets())["training-0"].replace('load_config(Path("configs/phrasebook.yaml"), {})', toy)
    output = run_program(source.replace("% 50", "% 2"), tmp_path)
    assert re.findall(r"^step (\d+): gradient norm \d", output, re.MULTILINE) == ["2", "4"]


def test_the_library_guide_and_the_readme_have_programs() -> None:
    assert {"README-0", "library-0"} <= PROGRAMS.keys()


def sections_of(text: str) -> list[str]:
    """What stands before the first heading, and below each."""
    return re.split(r"^#+ .*$", FENCE.sub("", text), flags=re.MULTILINE)


def test_the_chinese_theory_is_the_same_document() -> None:
    english, chinese = ((ROOT / "docs" / name).read_text("utf-8") for name in ("theory.md", "theory.zh-CN.md"))
    assert FENCE.findall(chinese) == FENCE.findall(english)
    in_chinese = dict(zip(anchors_of(english), anchors_of(chinese), strict=True))
    same = {f"#{anchor}": f"#{in_chinese[anchor]}" for anchor in in_chinese} | {"theory.zh-CN.md": "theory.md"}
    for ours, theirs in zip(sections_of(english), sections_of(chinese), strict=True):
        assert sorted(links_of(theirs)) == sorted(same.get(link, link) for link in links_of(ours))


def test_the_chinese_readme_shows_what_the_readme_shows() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    shown, all_shown = ([re.sub(r" +# .*", "", code) for _, code in FENCE.findall(text)] for text in (chinese, english))
    assert shown == [code for code in all_shown if code in shown]
    assert len(shown) == 4  # two commands, what they print, one's own pairs, and the diff from nn.Embedding
    only_chinese = set(links_of(chinese)) - set(links_of(english))
    assert only_chinese == {"README.md", "README.md#the-library", "docs/theory.zh-CN.md"}
    assert "README.zh-CN.md" in links_of(english)
