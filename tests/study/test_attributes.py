"""What is stored in studies has its names in one module."""

import ast
from pathlib import Path

from conftest import ROOT

from iolaus.study import attributes

NAMES = {name: value for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)}
METHODS = ("set_user_attr", "set_system_attr", "set_trial_user_attr", "set_trial_system_attr", "set_study_user_attr")


def literals(path: Path) -> list[str]:
    """Give the texts in a module that name something stored in a study or a trial."""
    found: list[ast.expr] = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="get", value=ast.Attribute(attr="user_attrs" | "system_attrs"))):
                found += node.args[:1]
            case ast.Subscript(value=ast.Attribute(attr="user_attrs" | "system_attrs")):
                found.append(node.slice)
            case ast.Call(func=ast.Attribute(attr=method)) if method in METHODS:
                found += node.args
            case ast.Constant(value=str(text)) if text.startswith(attributes.PREFIX):
                found.append(node)
    return [ast.unparse(node) for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_other_module_writes_the_name_of_an_attribute_out() -> None:
    paths = [path for path in (ROOT / "src").rglob("*.py") if path.name != "attributes.py"]
    assert not {f"{path.relative_to(ROOT)}: {text}" for path in paths for text in literals(path)}


def test_no_two_attributes_have_the_same_name() -> None:
    assert len(set(NAMES.values())) == len(NAMES)
