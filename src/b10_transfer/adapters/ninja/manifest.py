"""The part of ninja's language that compilers use in ``build.ninja``: variables, rules and build statements.

It gives the command of each output as ninja runs it. Nothing here has to be complete: a save compares each command's
hash with the one in ninja's log, and leaves a build alone if they differ.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_LINE = re.compile(r"((?:[^\n$]|\$[\s\S])*)\n?")
"""A line, with the lines that continue it after a ``$``."""
_ESCAPE = re.compile(r"\$(?:(\n[ \t]*)|([ :$])|\{([\w.-]+)\}|([\w-]+))", re.ASCII)
_WORD = re.compile(r"[ \t]*((?:\$[\s\S]|[^\s:|$])+|\|\||\|@|[:|])")
_BINDING = re.compile(r"([\w.-]+)[ \t]*=[ \t]*([\s\S]*)", re.ASCII)
_PLAIN = re.compile(r"[\w+\-./]+", re.ASCII)
_DEEPEST = 20
"""Variables in variables. Ninja refuses cycles."""
_MOST_TEXT = 1024 * 1024
"""Characters of a command or another value. Linux refuses longer arguments."""
_MOST_LOOKUPS = 10_000
"""Variables that one command names."""

Scope = Callable[[str], str]


@dataclass(frozen=True)
class Edge:
    """One build statement."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    """Explicit and implicit inputs."""
    command: str
    reports_headers: bool = False
    """Whether ninja keeps the headers that the command reports (``deps``)."""


@dataclass
class _Statement:
    """A line that is not indented, and the variables in the lines below it."""

    text: str
    bindings: dict[str, str] = field(default_factory=dict)


def edges(text: str) -> list[Edge]:
    """The build statements of a ``build.ninja``, with paths normalised.

    Args:
        text: Its content.

    Raises:
        ValueError: It has a statement that compilers do not write.
    """
    variables: dict[str, str] = {}
    rules: dict[str, Mapping[str, str]] = {}
    builds: list[tuple[list[str], dict[str, str], Mapping[str, str]]] = []

    def of_file(name: str) -> str:
        return variables.get(name, "")

    for statement in _statements(text):
        word, _, rest = statement.text.partition(" ")
        if word == "rule":
            rules[rest.strip()] = statement.bindings
        elif word == "build":
            own = {name: _evaluated(value, of_file) for name, value in statement.bindings.items()}
            words = [_evaluated(found, _chain(own, of_file)) for found in _words(rest)]
            rule = _rule_of(words)
            if rule != "phony":
                if rule not in rules:
                    raise ValueError(f"it names the rule {rule!r}, which it does not have")
                builds.append((words, own, rules[rule]))
        elif binding := _BINDING.fullmatch(statement.text):
            variables[binding[1]] = _evaluated(binding[2], of_file)
        elif word not in ("default", "pool"):
            raise ValueError(f"it has the statement {statement.text!a:.80}")
    return [_edge(words, own, rule, of_file) for words, own, rule in builds]


def _statements(text: str) -> Iterator[_Statement]:
    statement: _Statement | None = None
    for match in _LINE.finditer(text):
        line = match[1]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] not in " \t":
            if statement is not None:
                yield statement
            statement = _Statement(line)
            continue
        binding = _BINDING.fullmatch(line.lstrip(" \t"))
        if binding is None or statement is None:
            raise ValueError(f"it has the line {line!a:.80}")
        statement.bindings[binding[1]] = binding[2]
    if statement is not None:
        yield statement


def _words(text: str) -> list[str]:
    words, at = [], 0
    text = text.rstrip(" \t")
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise ValueError(f"it has the statement {text!a:.80}")
        words.append(match[1])
        at = match.end()
    return words


def _rule_of(words: list[str]) -> str:
    try:
        return words[words.index(":") + 1]
    except (ValueError, IndexError):
        raise ValueError(f"it has the statement {' '.join(words)!a:.80}") from None


def _edge(words: list[str], own: Mapping[str, str], rule: Mapping[str, str], of_file: Scope) -> Edge:
    colon = words.index(":")
    outputs, _ = _split(words[:colon])
    explicit, implicit = _split(words[colon + 2 :])
    of_edge = _chain(own, of_file)
    depth = lookups = 0

    def lookup(name: str) -> str:
        nonlocal depth, lookups
        lookups += 1
        if lookups > _MOST_LOOKUPS:
            raise ValueError(f"one of its commands names more than {_MOST_LOOKUPS} variables")
        if name in ("in", "in_newline"):
            return (" " if name == "in" else "\n").join(map(_quoted, explicit))
        if name == "out":
            return " ".join(map(_quoted, outputs))
        if name in own or name not in rule:
            return of_edge(name)
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"the variable ${name} names itself")
        try:
            return _evaluated(rule[name], lookup)
        finally:
            depth -= 1

    command = lookup("command")
    if response := lookup("rspfile_content"):
        command = f"{command};rspfile={response}"
    reports_headers = bool(lookup("deps"))
    if lookup("depfile") and not reports_headers:
        # Ninja then reads the compiler's own file each time. Nothing here does.
        raise ValueError("it has a depfile without deps")
    return Edge((*outputs, *_split(words[:colon])[1]), (*explicit, *implicit), command, reports_headers)


def _split(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The explicit paths, and the implicit ones behind ``|``. Order-only inputs decide nothing."""
    found: tuple[list[str], list[str]] = ([], [])
    is_implicit = False
    for word in words:
        if word in ("||", "|@"):
            break
        if word == "|":
            is_implicit = True
        else:
            found[is_implicit].append(os.path.normpath(word))
    return found


def _chain(own: Mapping[str, str], outer: Scope) -> Scope:
    return lambda name: own[name] if name in own else outer(name)


def _evaluated(text: str, lookup: Scope) -> str:
    left = _MOST_TEXT - len(text)

    def value(match: re.Match[str]) -> str:
        nonlocal left
        continued, escaped, braced, plain = match.groups()
        found = "" if continued else escaped or lookup(braced or plain)
        left -= len(found)
        if left < 0:
            raise ValueError(f"it has a value of more than {_MOST_TEXT} characters")
        return found

    return _ESCAPE.sub(value, text)


def _quoted(path: str) -> str:
    """A path as ninja gives it to the shell."""
    if _PLAIN.fullmatch(path):
        return path
    return "'" + path.replace("'", "'\\''") + "'"
