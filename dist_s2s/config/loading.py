"""How a YAML file and the command line set the configuration of a run; its keys are in schema.

Every scalar reaches pydantic as the text that was written, and the declared type of the key decides what it
means: `3e-4` is a number, `010` is ten, and `no` is false for a true/false key alone.
"""

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dist_s2s import UserError
from dist_s2s.config.schema import KEYS, LIMITS, SECTIONS, Config

COMMAND_LINE = "command line"
DEFAULTS = "defaults"


def load_config(config_file: Path | None, overrides: Mapping[str, str]) -> Config:
    """Return the defaults, overridden by the file, overridden by `overrides` ({full key: text}).

    Raises UserError for a file that is missing, empty or malformed (with its line), and otherwise with one
    line for each unknown key and each value of a wrong type or out of bounds.
    """
    problems: list[str] = []
    given = {} if config_file is None else _flatten(_read_yaml(config_file), str(config_file), problems)
    given = _without_replaced_limits(given, overrides)
    given |= {key: (value, COMMAND_LINE) for key, value in overrides.items()}
    nested: dict[str, Any] = {name: {} for name in SECTIONS}
    for key, (value, origin) in given.items():
        section, _, name = key.rpartition(".")
        if key in SECTIONS:
            problems.append(f"{key} must be a section with keys of its own, but is {_shown(value)} ({origin})")
        elif key not in KEYS:
            where = "on the command line" if origin == COMMAND_LINE else f"in {origin}"
            problems.append(f"unknown key {key} {where}; {_suggestion(key)}")
        elif value == "":
            problems.append(f"{key} must not be empty ({origin})")
        else:
            (nested[section] if section else nested)[name] = value
    try:
        config = Config.model_validate(nested)
    except ValidationError as error:
        raise UserError("\n".join(problems + [_describe(details, given) for details in error.errors()])) from error
    if problems:
        raise UserError("\n".join(problems))
    return config


def with_keys(config: Config, updates: Mapping[str, Any]) -> Config:
    """Return the configuration with some keys set, {full key: value of its type}, checked as a whole.

    Raises:
        UserError: they do not go with what is set.
    """
    nested = config.model_dump(exclude_unset=True)
    for key, value in updates.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        raise UserError("\n".join(str(each["ctx"]["error"]) for each in error.errors())) from error


def _without_replaced_limits(
    in_file: dict[str, tuple[object, str]], overrides: Mapping[str, str]
) -> dict[str, tuple[object, str]]:
    """Return what the file gives, without limits where the command line has some of its own.

    Whoever gives a limit means that one: a limit of a lower level (command line, file, defaults) would end the run
    unasked.
    """
    limited_here = any(_is_limit(overrides.get(key)) for key in LIMITS)
    if limited_here:
        in_file = {key: value for key, value in in_file.items() if key not in LIMITS}
    if limited_here or any(_is_limit(in_file[key][0]) for key in LIMITS if key in in_file):
        return dict.fromkeys(LIMITS, (None, DEFAULTS)) | in_file
    return in_file


def _is_limit(value: object) -> bool:
    return value is not None and str(value).lower() not in ("null", "none")


class _TextLoader(yaml.SafeLoader):
    """Mappings, lists, null and text: no other type is guessed, and a key may not be given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"key {key.value} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("map", "seq", "null", "str")
}


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the configuration {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    try:
        content = yaml.load(text, _TextLoader)  # a SafeLoader that makes even fewer types
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{file}:{line}: {reason}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{file}:{line}: a character that YAML does not allow, {chr(error.character)!a}") from error
    if content is None:
        raise UserError(f"{file} is empty: expected sections such as data, model, training")
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold sections such as data, model, training, but is {_shown(content)}")
    return content


def _flatten(content: Mapping[Any, Any], origin: str, problems: list[str]) -> dict[str, tuple[object, str]]:
    """{full key: (value, origin)} of a file's content; a section without keys is left out."""
    flat: dict[str, tuple[object, str]] = {}
    for name, value in content.items():
        section, dot, key = str(name).partition(".")
        if dot and section in SECTIONS:
            problems.append(f"{name} must be written as {key} in the section {section} ({origin})")
        elif isinstance(value, dict) and name not in KEYS:
            flat |= {f"{name}.{key}": (entry, origin) for key, entry in value.items()}
        elif value is not None or name not in SECTIONS:
            flat[str(name)] = (value, origin)
    return flat


def _suggestion(key: str) -> str:
    last_names = {full: full.rpartition(".")[2] for full in KEYS}
    last = key.rpartition(".")[2]
    near = [full for full in KEYS if last_names[full] == last]
    near = near or get_close_matches(key, KEYS, n=1, cutoff=0.8)
    if not near:
        close = get_close_matches(last, last_names.values(), n=1, cutoff=0.7)
        near = [full for full in KEYS if last_names[full] in close]
    if "." in key:  # the section says which of the sections' equal names is meant
        near = get_close_matches(key, near, n=1, cutoff=0)
    return f"did you mean {' or '.join(near)}?" if near else "--help lists the keys"


_RULES = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "one of {expected}",
    "finite_number": "a finite number",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "dict": "a mapping",
}


def _describe(details: ErrorDetails, given: Mapping[str, tuple[object, str]]) -> str:
    """Describe one of pydantic's errors in one line: the key, the rule, the value and where it was given."""
    key, kind, value = ".".join(map(str, details["loc"][:2])), details["type"], details["input"]
    if kind == "value_error":
        error = str(details["ctx"]["error"])
        return f"{key}: {error} ({given[key][1]})" if key in given else error
    rule = _RULES.get(kind) or _RULES[kind.partition("_")[0]]
    context = details.get("ctx", {}).items()
    limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context}
    # A bound is broken by a number, which needs no quotes; text that is no number is quoted.
    shown = value if kind.startswith(("greater", "less", "multiple")) and isinstance(value, str) else _shown(value)
    rule = rule.format(**limits).replace("'", "")
    return f"{key} must be {rule}, but is {shown} ({given[key][1]})"


def _shown(value: object) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    return "null" if value is None else repr(value)
