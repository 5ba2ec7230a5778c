"""What mmdetection's configuration says, read from the text in a checkpoint without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

_FILE_NAME_LINE = re.compile(r"^\S+\.py$", re.MULTILINE)


class ConfigText:
    """The values of a configuration by the names they are given to.

    Only literals are read: `dict(type='Pad', size_divisor=32)` gives `size_divisor` the value 32.
    Names, calls of anything but `dict`, and text that is no Python give nothing.
    """

    def __init__(self, text: str) -> None:
        try:
            # mmcv writes each file's name in front of its text
            self._tree: ast.AST = ast.parse(_FILE_NAME_LINE.sub("", text))
        except (SyntaxError, ValueError, RecursionError):
            self._tree = ast.Module(body=[], type_ignores=[])

    def values(self, name: str, inside: str | None = None) -> list[Any]:
        """All different literals given to `name`, in order of the text.

        Args:
            name: of a field, such as "size_divisor".
            inside: only in what is given to this name, such as "test_pipeline".
        """
        found: list[Any] = []
        for tree in self._given(inside) if inside else [self._tree]:
            for given in _given(tree, name):
                try:
                    value = ast.literal_eval(given)
                except (ValueError, TypeError, SyntaxError, RecursionError):
                    continue
                if value not in found:
                    found.append(value)
        return found

    def value(self, name: str, inside: str | None = None) -> Any | None:
        """The one literal given to `name`, or None if there is none or there are several."""
        found = self.values(name, inside)
        return found[0] if len(found) == 1 else None

    def types(self, name: str) -> list[str]:
        """The `type` of each dict given to `name`, in order; only of that dict, not inside it."""
        found = []
        for given in self._given(name):
            for key, value in _fields(given):
                if key == "type" and isinstance(value, ast.Constant):
                    found.append(str(value.value))
        return found

    def _given(self, name: str) -> list[ast.AST]:
        return list(_given(self._tree, name))


def _given(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """What is given to a name: `name = ...`, `dict(name=...)` or `{'name': ...}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if name in names:
                yield node.value
        for key, value in _fields(node):
            if key == name:
                yield value


def _fields(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """The fields of `dict(...)` or `{...}`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values)
        return [(str(key.value), value) for key, value in pairs if isinstance(key, ast.Constant)]
    return []
