"""The exception for mistakes that the user can fix, and parts of its messages."""

import difflib
import re
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what the user gave. Its message says what is wrong and what to do; entry points print only that."""


def require(holds: bool, key: str, rule: str, value: object) -> None:
    """Raise `InputError` «`key` must be `rule`, but got `value`» unless the rule holds."""
    if not holds:
        raise InputError(f"{key} must be {rule}, but got {value}")


def is_number(value: object) -> bool:
    """Return whether a value from a configuration is a number; YAML's true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def redact_urls(text: str) -> str:
    """Return a text without the user names and passwords that URLs in it may hold."""
    return re.sub(r"://\S*@", "://", text)  # a password may hold anything


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Return a question that names the most similar of the known keys, or an empty text."""
    similar = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def one_line(message: object) -> str:
    """Return an error or its message in one line, without what Hydra's parser puts around it."""
    lines = [line.strip() for line in str(message).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Error ", "See https://"))]
    return " ".join(kept) or " ".join(lines) or type(message).__name__


def printable(text: str) -> str:
    """Return a text in one line: characters that would move the cursor become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
