"""Keys of a configuration, in nested dicts and in overrides; imported at start-up, therefore without Optuna."""

from typing import Any

BRANCH = " when "
"""Separates key element and branch in the name of a parameter whose key has another range in another branch."""


def key_element(name: str) -> str:
    """Return what stands before the ``=`` in the override of a parameter: its name without its branch.

    Hydra's grammar calls it the key element: a key with its package, and with a ``+`` where it is added. One that
    begins with ``~`` is deleted.
    """
    return name.partition(BRANCH)[0]


def key_of(text: str) -> str:
    """Return the key of a parameter's name, or of an override: without ``+``, package, branch and value.

    The ``~`` of a deletion stays, since to delete a key and to set it are two things.
    """
    return key_element(text).partition("=")[0].lstrip("+").split("@")[0]


def bare_key(text: str) -> str:
    """Return the key that an override sets, adds or deletes: that of `key_of` without the ``~`` of a deletion."""
    return key_of(text).lstrip("~")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys; lists stay whole. ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
