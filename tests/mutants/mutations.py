"""Small faults for a module: each is one replacement in its source text."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}

_SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\b")
_SQL_FAULTS = (
    (re.compile(r" SKIP LOCKED"), ""),
    (re.compile(r"\s+FOR (NO KEY )?(UPDATE|SHARE|KEY SHARE)( OF \w+)?(?! SKIP)"), ""),
    (re.compile(r"\bgreatest\("), "least("),
    (re.compile(r"\bleast\("), "greatest("),
    (re.compile(r"\bIS NOT NULL\b"), "IS NULL"),
    (re.compile(r"\bIS NULL\b"), "IS NOT NULL"),
    (re.compile(r"(?<![<>=!])<(?![<>=])"), "<="),
    (re.compile(r"(?<![<>=!])<="), "<"),
    (re.compile(r"(?<![<>=!-])>(?![<>=])"), ">="),
    (re.compile(r"(?<![<>=!])>="), ">"),
    (re.compile(r"\bNOT EXISTS\b"), "EXISTS"),
    (re.compile(r"\s+ORDER BY [\w., ]+(?=\)|\n|\"|$)"), ""),
    (re.compile(r"\s+AND [\w.]+ (=|<>|IN) [^\n]*(?=\n)"), ""),
)


@dataclass(frozen=True)
class Mutant:
    """One fault: the characters from `start` to `end` of the source are replaced."""

    start: int
    end: int
    replacement: str
    line: int

    def apply(self, source: str) -> str:
        """Return `source` with the fault."""
        return source[: self.start] + self.replacement + source[self.end :]

    def describe(self, source: str) -> str:
        """Return the faulty lines in the form of a diff."""
        first = source.rfind("\n", 0, self.start) + 1
        last = source.find("\n", self.end)
        before = source[first:last]
        after = self.apply(source)[first : last + len(self.replacement) - (self.end - self.start)]
        lines = [f"- {line}" for line in before.splitlines()]
        return "\n".join([*lines, *(f"+ {line}" for line in after.splitlines())])


class _Positions:
    """Offsets of AST positions, which count bytes of a line."""

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        text = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(text)

    def of(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )


def list_mutants(source: str) -> list[Mutant]:
    """Return every fault that is tried in a module, in the order of its lines."""
    tree, positions = ast.parse(source), _Positions(source)
    found = {
        mutant
        for node in _nodes_worth_a_fault(tree)
        for mutant in _mutate(node, source, positions)
        if mutant.apply(source) != source
    }
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.replacement))


def _nodes_worth_a_fault(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes outside docstrings, decorators and constants that only tune the behaviour."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            skipped |= {id(child) for child in ast.iter_child_nodes(node)}
            continue
        for part in _parts_without_behaviour(node):
            skipped.add(id(part))
        yield node


def _parts_without_behaviour(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant()):
            yield node.value
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from node.decorator_list
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
            if not _SQL.search(ast.unparse(value)):
                yield value


def _mutate(node: ast.AST, source: str, positions: _Positions) -> Iterator[Mutant]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            swapped = _COMPARISONS.get(type(operator))
            if swapped is not None:
                start, end = positions.of(left)[1], positions.of(right)[0]
                # Parentheses around an operand belong to it.
                gap = source[start:end]
                word = re.search(r"is not|not in|is|in|[<>=!]+", gap)
                if word is not None:
                    at = start + word.start()
                    yield Mutant(at, start + word.end(), swapped, node.lineno)
        case ast.BoolOp(op=operator, values=[first, second, *_]):
            start, end = positions.of(first)[1], positions.of(second)[0]
            word = re.search(r"\b(and|or)\b", source[start:end])
            if word is not None:
                other = "or" if isinstance(operator, ast.And) else "and"
                yield Mutant(start + word.start(), start + word.end(), other, node.lineno)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            start, end = positions.of(node)
            inner = positions.of(operand)
            yield Mutant(start, end, f"({source[inner[0] : inner[1]]})", node.lineno)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            start, end = positions.of(node)
            inner = positions.of(operand)
            yield Mutant(start, end, source[inner[0] : inner[1]], node.lineno)
        case ast.Constant(value=bool() as value):
            yield Mutant(*positions.of(node), str(not value), node.lineno)
        case ast.Constant(value=int() as value) if value < 1_000_000:
            yield Mutant(*positions.of(node), str(value + 1), node.lineno)
        case ast.Call(func=ast.Attribute(value=receiver, attr="with_for_update" | "order_by")):
            start, end = positions.of(node)
            inner = positions.of(receiver)
            yield Mutant(start, end, source[inner[0] : inner[1]], node.lineno)
        case ast.Expr(value=ast.Await()):
            yield Mutant(*positions.of(node), "pass", node.lineno)
        case ast.AugAssign():
            yield Mutant(*positions.of(node), "pass", node.lineno)
        case ast.Constant(value=str() as text) if _SQL.search(text):
            yield from _mutate_sql(node, source, positions)
        case ast.JoinedStr(values=values) if any(
            isinstance(part, ast.Constant) and _SQL.search(str(part.value)) for part in values
        ):
            yield from _mutate_sql(node, source, positions)


def _mutate_sql(node: ast.expr, source: str, positions: _Positions) -> Iterator[Mutant]:
    start, end = positions.of(node)
    for pattern, replacement in _SQL_FAULTS:
        for found in pattern.finditer(source, start, end):
            line = node.lineno + source.count("\n", start, found.start())
            yield Mutant(found.start(), found.end(), replacement, line)
