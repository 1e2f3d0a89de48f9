"""The keys that parameters and overrides name."""

import pytest

from iolaus.search_space.keys import bare_key, flatten, key_element, key_of


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("lr", "lr"),
        ("lr=0.1", "lr"),
        ("+optimizer.momentum=0.9", "optimizer.momentum"),
        ("++lr=0.1", "lr"),
        ("db@src.first=mysql", "db"),
        ("~layers.conv2", "~layers.conv2"),
        ("~layers.conv2=null", "~layers.conv2"),
        ("+lr when optimizer=sgd and model=cnn", "lr"),
        ("title='a=b when c=d'", "title"),
    ],
)
def test_a_key_is_what_an_override_or_a_parameter_addresses(text: str, key: str) -> None:
    assert key_of(text) == key
    assert bare_key(text) == key.lstrip("~")


def test_a_key_element_is_what_the_override_of_a_parameter_begins_with() -> None:
    assert key_element("+db@src when optimizer=sgd") == "+db@src"
    assert key_element("~layers.conv2") == "~layers.conv2"


def test_flatten_joins_keys_with_dots_and_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1, 2], "e": {}}
