"""Keys of a configuration, in nested dicts and in overrides; imported at start-up, therefore without Optuna."""

from typing import Any

BRANCH = " when "
"""Stands in the name of a parameter whose key has a range of its own in each of several branches."""


def start_of(name: str) -> str:
    """Return how the override of a parameter begins: its name without the branch."""
    return name.partition(BRANCH)[0]


def key_of(name: str) -> str:
    """Return a key without the sign that an override begins with, and without its package and its branch."""
    return start_of(name).lstrip("+").split("@")[0]


def key_in(override: str) -> str:
    """Return the key that an override names."""
    return key_of(override.partition("=")[0])


def setting_of(override: str) -> str:
    """Return the key that an override sets, adds or deletes."""
    return key_in(override).lstrip("~")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys; lists stay whole. ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
