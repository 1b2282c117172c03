"""The command line of `train`: a configuration file, and a `--section.key VALUE` for each key that it overrides."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NoReturn, get_args, get_origin

from dist_s2s import UserError
from dist_s2s.cli.command_line import command_parser
from dist_s2s.config.schema import KEYS, SECTIONS
from dist_s2s.config.values import as_text


def parse_arguments(argv: Sequence[str], prog: str, description: str) -> tuple[Path | None, dict[str, str]]:
    """Return the --config file, and every other `--key VALUE` or `--key=VALUE` as {key: text}; the last one counts.

    --help prints every key and leaves with SystemExit(0). Raises UserError for a stray word or a missing
    value; whether a key exists is left to `load_config`.
    """
    if "-h" in argv or "--help" in argv:
        _print_help(prog, description)
    overrides: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise UserError(f"unexpected argument {word!r}: expected --config FILE or --section.key VALUE")
        if not equals:
            value = next(words, "")
        # After `=` a value may start with dashes; as a word of its own it is the next option.
        if not value or (not equals and value.startswith("--")):
            raise UserError(f"--{key} needs a value: --{key} VALUE")
        overrides[key] = value
    config_file = overrides.pop("config", None)
    return (None if config_file is None else Path(config_file)), overrides


def split_inputs(argv: Sequence[str], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of `train` into inputs, which are words of their own, and options with their values.

    Args:
        argv: all arguments.
        flags: options without a value.
    """
    inputs: list[str] = []
    options: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            inputs.append(word)
        elif "=" in word or word in flags:
            options.append(word)
        else:
            options += [word, *islice(words, 1)]
    return inputs, options


def split_config_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command's arguments into those of the configuration, `--config` and `--section.key`, and its own."""
    config_words: list[str] = []
    own: list[str] = []
    words = iter(argv)
    for word in words:
        key, equals, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and (key == "config" or "." in key):
            config_words += [word] if equals else [word, *islice(words, 1)]
        else:
            own.append(word)
    return config_words, own


def _print_help(prog: str, description: str) -> NoReturn:
    usage = (
        f"{prog} [INPUT ...] [--minutes M] [--columns A,B] [--trace FIRST:LAST] [--config FILE] [--verbose] "
        "[--section.key VALUE ...]"
    )
    parser = command_parser(prog, description, usage=usage)
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="files of pairs; what is not set is chosen by them")
    parser.add_argument("--minutes", metavar="M", help="is --training.max_minutes")
    parser.add_argument("--columns", metavar="A,B", help="is --data.columns")
    parser.add_argument("--trace", metavar="FIRST:LAST", help="is --training.trace")
    parser.add_argument("--config", metavar="FILE", help="YAML file; the keys below override it")
    parser.add_argument("--verbose", action="store_true", help="show every parameter tensor")
    groups = {"": parser} | {name: parser.add_argument_group(name) for name in SECTIONS}
    for key, field in KEYS.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ("VALUE",)
        text = f"{field.description} (default: {as_text(field.default)})".replace("%", "%%")
        groups[key.rpartition(".")[0]].add_argument(f"--{key}", metavar="|".join(choices), help=text)
    parser.print_help()
    raise SystemExit(0)
