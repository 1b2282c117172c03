"""What `train` makes of files that are its arguments, before they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import load_config


def name_run(inputs: Sequence[str], config_file: Path | None, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the overrides with a run directory of the first input's name, unless one is set.

    Raises:
        UserError: if there is a data.train too, or an input that is not there.
    """
    config = load_config(config_file, dict(overrides))
    if "train" in config.data.model_fields_set or config.data.stream is not None:
        raise UserError(f"{inputs[0]} is to be trained on, but data.train or data.stream is set too: leave out one")
    for each in inputs:
        for name in each.split(","):
            path = Path(name)
            if not path.exists() and not any(parent.is_file() for parent in path.parents):  # a member of an archive
                raise UserError(f"{name} does not exist: give files of pairs, --config FILE or --section.key VALUE")
    if "run_dir" in config.model_fields_set:
        return dict(overrides)
    name = Path(inputs[0].split(",")[0]).name
    return {**overrides, "run_dir": f"runs/{name.split('.')[0] or name}"}
