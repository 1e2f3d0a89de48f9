"""The one exception that means: the user can mend this."""

import re


class InputError(ValueError):
    """A mistake in what the user gave. Its message says what is wrong and what to do; entry points print only that."""


def require(holds: bool, key: str, rule: str, value: object) -> None:
    """Raise `InputError` «`key` must be `rule`, but got `value`» unless the rule holds."""
    if not holds:
        raise InputError(f"{key} must be {rule}, but got {value}")


def is_number(value: object) -> bool:
    """Whether a value from a configuration is a number; YAML's true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def public(text: str) -> str:
    """A text as others may read it: without the user and password that a URL in it may hold."""
    return re.sub(r"://\S*@", "://", text)  # a password may hold anything
