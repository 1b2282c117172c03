"""A corpus that a tiny model learns in seconds, and the options of such a model."""

from itertools import product
from pathlib import Path

_SUBJECTS = {"我": "I", "你": "you", "安娜": "Anna", "老师": "the teacher"}
_VERBS = {"看见": "saw", "喜欢": "liked", "画": "painted"}
_OBJECTS = {"猫": "a cat", "树": "a tree", "火车": "a train", "月亮": "the moon"}

PAIRS = [
    (f"{subject}{verb}{thing}。", f"{_SUBJECTS[subject]} {_VERBS[verb]} {_OBJECTS[thing]} .")
    for subject, verb, thing in product(_SUBJECTS, _VERBS, _OBJECTS)
]


def write_corpus(folder: Path) -> Path:
    """Writes the corpus as folder/toy.tsv."""
    path = folder / "toy.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    return path


def options(corpus: Path, run_dir: Path, **overrides: object) -> list[str]:
    """Arguments of `train`: the toy corpus for everything, a tiny model. training__seed=3 overrides training.seed."""
    values: dict[str, object] = {
        "run_dir": run_dir,
        **dict.fromkeys(("data.train", "data.valid", "data.test"), corpus),
        "data.batch_tokens": 60,
        "model.embedding_dim": 12,
        "model.hidden_size": 16,
        "training.learning_rate": 0.02,
        "training.warmup_steps": 5,
        "training.max_epochs": "null",
        "training.max_steps": 20,
        "training.log_every": 1,
        "training.precision": "fp32",  # auto is decided by the clock, on a busy machine not always the same
        "training.report": "false",  # it takes a second, most of it for matplotlib
    }
    values |= {key.replace("__", "."): value for key, value in overrides.items()}
    return [f"--{key}={value}" for key, value in values.items()]
