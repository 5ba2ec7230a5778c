"""Formulas of claims: arithmetic over `row.quantity`, read without running anything."""

from __future__ import annotations

import ast

from sepcbench.errors import UsageError

_LONGEST_FORMULA = 500  # nested deeper than any stack it would not be
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def parse_formula(formula: str, where: str) -> ast.expr:
    """Parse a claim's formula; only arithmetic, numbers and `row.quantity` are let through.

    Raises:
        UsageError: anything else is in it.
    """
    if len(formula) > _LONGEST_FORMULA:
        raise UsageError(f"{where}: a formula has {_LONGEST_FORMULA} characters at most")
    try:
        tree = ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"{where}: '{formula}' is not a formula") from None
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        binary = isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS)
        number = isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        word = isinstance(node, ast.Name) and id(node) in inside
        minor = isinstance(node, (*_OPERATORS, ast.Load))
        if not (binary or number or named or word or minor):
            raise UsageError(f"{where}: '{formula}' may hold only + - * / ( ) and row.quantity")
    return tree
