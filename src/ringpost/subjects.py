"""Subjects and patterns: words with dots between; `*` is one word, `#` any number of words, as in AMQP."""

from __future__ import annotations

from functools import lru_cache

_LONGEST_SUBJECT = 255  # bytes
_LONGEST_PATTERN = 255


@lru_cache(4096)  # a publisher uses few of them, many times
def check_subject(subject: str) -> bytes:
    """A subject as it travels. Raises ValueError, TypeError."""
    return _checked(subject, "subject", _LONGEST_SUBJECT)


def check_pattern(pattern: str) -> str:
    """ "#" matches everything, and costs nothing. Raises ValueError, TypeError."""
    if pattern == "":
        raise ValueError('a pattern has at least one word; "#" matches everything')
    _checked(pattern, "pattern", _LONGEST_PATTERN)
    return "" if pattern == "#" else pattern


def _checked(text: str, what: str, longest: int) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a str, not {type(text).__qualname__}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {what} {text!r} is not valid Unicode: {error}") from None
    if len(encoded) > longest or " " in text or "\0" in text:
        raise ValueError(f"a {what} has at most {longest} bytes and no blanks, this one is {text!r}")
    return encoded


def from_nats(pattern: str) -> str:
    """A NATS subject pattern (`*` one token, `>` one or more at the end) in ringpost's spelling.

    Raises ValueError for a token `#`, which is a wildcard here, and for `>` before the end.
    """
    words = pattern.split(".")
    _refuse(pattern, words, ("#",))
    _refuse(pattern, words[:-1], (">",))
    if words[-1] == ">":
        words[-1:] = ["*", "#"]
    return ".".join(words)


def from_mqtt(pattern: str) -> str:
    """An MQTT topic filter (`+` one level, `#` any number at the end, `/` between) in ringpost's spelling.

    Raises ValueError for dots inside a level: they would become levels of their own; for a level `*`, which
    is a wildcard here; and for `#` before the end.
    """
    if "." in pattern:
        raise ValueError(f"{pattern!r}: a level with a dot in it has no ringpost spelling")
    words = pattern.split("/")
    _refuse(pattern, words, ("*",))
    _refuse(pattern, words[:-1], ("#",))
    return ".".join("*" if word == "+" else word for word in words)


def _refuse(pattern: str, words: list[str], these: tuple[str, ...]) -> None:
    for word in words:
        if word in these:
            raise ValueError(f"{pattern!r}: {word!r} there has no ringpost spelling")
