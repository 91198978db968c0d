"""The command line of the server whose artifacts are saved, recorded in packs without its secrets.

Nothing depends on it. It only helps to explain why restored artifacts are not used: "saved with --max-model-len 512".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NAME = "command"
"""Its name among the recorded facts of a pack."""
MASK = "***"
MOST_CHARACTERS = 2000
_MOST_SHOWN = 3
_MOST_VALUE = 60
_SECRET = re.compile(
    r"key|token|secret|passw|pwd|credential|auth|bearer|sign|cookie|session|private|cert|header|user|proxy", re.I
)
"""In the name of an option or a variable whose value is not recorded."""
_HARMLESS = re.compile(r"[A-Za-z0-9_.,:+/~-]*")
"""A value with other characters (JSON, a shell script, a URL with a user or a query) is not recorded."""
_WORD = re.compile(r"[A-Za-z0-9]+")
_LONG = re.compile(r"[A-Za-z0-9_-]{16,}")
_ODD = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z][0-9]+[A-Za-z]|[0-9][A-Za-z]+[0-9]|[0-9][a-z]|[A-Z][0-9][0-9]")
"""Occurs in names, too, but not in most of their words."""
_LONGEST_NAME, _MOST_ODD = 12, 8
"""In characters: a word is no longer unless it is of letters alone, and the odd words of a name together."""
_OF_A_POD = {"--port", "--host", "--log-level", "--uvicorn-log-level"}
"""Options that may differ between pods and do not change what is compiled."""
_own = ""


def record(arguments: Sequence[str]) -> None:
    """Record a command line in the packs that this process publishes."""
    global _own
    _own = masked(arguments)


def recorded() -> dict[str, str]:
    """The fact to record; empty if no command line is known."""
    return {NAME: _own} if _own else {}


def masked(arguments: Sequence[str]) -> str:
    """A command line without what may be a secret, on one line and of bounded length."""
    shown: list[str] = []
    hides_next = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_option = argument.startswith("-")
        if hides_next and not argument.startswith("--"):
            shown.append(MASK)
        elif not equals:
            shown.append(argument if _is_harmless(argument) else MASK)
        elif _is_harmless(name):
            shown.append(argument if not _SECRET.search(name) and _is_harmless(value) else f"{name}={MASK}")
        else:
            shown.append(MASK)
        # One letter may be for a header or a user.
        hides_next = is_option and not equals and (len(argument) == 2 or bool(_SECRET.search(argument)))
    return " ".join(shown)[:MOST_CHARACTERS]


def _is_harmless(text: str) -> bool:
    """Whether a text is neither random nor of odd characters. To mask a name is no loss."""
    if not _HARMLESS.fullmatch(text) or any(map(_is_random, _WORD.findall(text))):
        return False
    odd = (filter(_ODD.search, _WORD.findall(long)) for long in _LONG.findall(text))
    return all(sum(map(len, words)) <= _MOST_ODD for words in odd)


def _is_random(word: str) -> bool:
    """Whether a word is too long to be a part of a name."""
    limit = 2 * _LONGEST_NAME if re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]+", word) else _LONGEST_NAME
    return len(word) >= limit


def saved_with(commands: Iterable[str]) -> str:
    """The options in which this server differs from the one that saved, in words; empty if there are none.

    Args:
        commands: Recorded in packs, latest last. A store may hold any text there.
    """
    saved = next((command for command in reversed(list(commands)) if command), "")
    if not saved or not _own:
        return ""
    theirs, ours = _options(saved), _options(_own)
    names = [name for name in dict.fromkeys([*theirs, *ours]) if name not in _OF_A_POD]
    different = [name for name in names if theirs.get(name) != ours.get(name)]
    words = [f"{_shown(name, theirs)}, this server has {_shown(name, ours)}" for name in different[:_MOST_SHOWN]]
    more = f"; and {len(different) - _MOST_SHOWN} more" if len(different) > _MOST_SHOWN else ""
    return f"saved with {'; '.join(words)}{more}" if words else ""


def _shown(name: str, options: dict[str, str]) -> str:
    if name not in options:
        return f"no {name}"
    return f"{name} {options[name]}".rstrip()


def _options(command: str) -> dict[str, str]:
    """The options of a command line with their values, as far as they are harmless."""
    found: dict[str, str] = {}
    last = ""
    for word in command[:MOST_CHARACTERS].split():
        name, _, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            last = name if len(name) <= _MOST_VALUE and _is_harmless(name) else ""
            word = value
        if last:
            found[last] = f"{found.get(last, '')} {word if _HARMLESS.fullmatch(word) else MASK}".strip()[:_MOST_VALUE]
    return {name: value for name, value in found.items() if MASK not in value}
