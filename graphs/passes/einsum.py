"""The pass that writes an Einsum of any equation as transposes, sums and products."""

import math
import re
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import Attribute, add_sizes, new_node, replace_node
from graphs.passes.registry import graph_pass

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TERM = re.compile(r"[A-Za-z]*")


@graph_pass("lowering", after="write_out_cubic_grid")
def write_out_einsum(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write each Einsum that onnx2tf does not lower as Transpose, Gather, ReduceSum, MatMul and Reshape.

    onnx2tf lowers most equations of two operands. It refuses an ellipsis, an equation without a result, other numbers
    of operands, an axis that is named twice in one operand, and the product of an operand with a vector.
    """
    changed = False
    for node in [node for node in model.graph if node.op_type == "Einsum"]:
        shapes = [static_shape(value) for value in node.inputs]
        if any(shape is None for shape in shapes):
            continue
        equation = str(node.attributes.get_string("equation", "")).replace(" ", "")
        read = read_equation(equation, [len(shape) for shape in shapes if shape is not None])
        if read is None or _is_lowered(equation, *read):
            continue
        _Writer(model.graph, node).write([shape for shape in shapes if shape is not None], *read)
        changed = True
    return model, changed


def read_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Return the terms of the operands and of the result, a letter for each axis, or None if they do not fit.

    An ellipsis becomes letters that the equation does not use. Without a result, it has the letters of the ellipsis and
    then those that occur once, in alphabetical order.
    """
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    free = [letter for letter in _LETTERS if letter not in equation]
    widest = max((rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0)
    if not 0 <= widest <= len(free):
        return None
    whole = "".join(free[:widest])
    found = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term) + 3
        found.append(term.replace("...", whole[len(whole) - count :] if count > 0 else ""))
        if len(found[-1]) != rank or not _TERM.fullmatch(found[-1]):
            return None
    letters = left.replace("...", "").replace(",", "")
    if not arrow:
        result = "..." + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    result = result.replace("...", whole)
    if not _TERM.fullmatch(result) or len(set(result)) != len(result) or not set(result) <= set("".join(found)):
        return None
    return found, result


def _is_lowered(equation: str, terms: Sequence[str], result: str) -> bool:
    return (
        "->" in equation
        and "..." not in equation
        and len(terms) == 2
        and bool(result)
        and all(len(set(term)) == len(term) for term in terms)
        and (1 not in map(len, terms) or {len(term) for term in terms} == {1})
    )


class _Writer:
    """The nodes that take the place of one Einsum."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph = graph
        self._node = node
        self._name = str(node.outputs[0].name)
        self._made: list[ir.Node] = []
        self._sizes: dict[str, int] = {}

    def write(self, shapes: Sequence[tuple[int, ...]], terms: Sequence[str], result: str) -> None:
        """Replace the Einsum. terms, result: as `read_equation` returns them."""
        for term, shape in zip(terms, shapes, strict=True):
            for letter, size in zip(term, shape, strict=True):
                self._sizes[letter] = max(self._sizes.get(letter, 1), size)
        operands = []
        for i, (value, term, shape) in enumerate(zip(self._node.inputs, terms, shapes, strict=True)):
            assert value is not None  # it has a shape
            others = set(result).union(*(other for j, other in enumerate(terms) if j != i))
            operands.append(self._alone(self._spread(value, term, shape), term, others))
        value, term = operands[0]
        for i, (other, letters) in enumerate(operands[1:], 1):
            needed = set(result).union(*(later for _, later in operands[i + 1 :]))
            value, term = self._product(value, term, other, letters, needed)
        value = self._turned(value, term, result)
        sizes = add_sizes(self._graph, f"{self._name}_sizes", tuple(self._sizes[letter] for letter in result))
        self._add("Reshape", [value, sizes])
        replace_node(self._graph, self._node, self._made)

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, Attribute] | None = None
    ) -> ir.Value:
        name = f"{self._name}_part_{len(self._made)}"
        self._made.append(new_node(op_type, inputs, attributes, output=name, name=name))
        return self._made[-1].outputs[0]

    def _numbers(self, what: str, numbers: Sequence[int]) -> ir.Value:
        return add_sizes(self._graph, f"{self._name}_part_{len(self._made)}_{what}", tuple(numbers))

    def _spread(self, value: ir.Value, term: str, shape: tuple[int, ...]) -> ir.Value:
        """Return a value whose axes of size 1 have the sizes of the same letters elsewhere."""
        wanted = [self._sizes[letter] for letter in term]
        return value if wanted == list(shape) else self._add("Expand", [value, self._numbers("wanted", wanted)])

    def _alone(self, value: ir.Value, term: str, needed: set[str]) -> tuple[ir.Value, str]:
        """Take the diagonal of each letter that a term has twice, and sum over the letters that are not needed."""
        for letter in dict.fromkeys(term):
            while term.count(letter) > 1:
                rest = "".join(
                    other for i, other in enumerate(term) if i not in (term.index(letter), term.rindex(letter))
                )
                order = [term.index(letter), term.rindex(letter)]
                order += [i for i in range(len(term)) if i not in order]
                size = self._sizes[letter]
                turned = self._add("Transpose", [value], {"perm": order})
                flat = self._numbers("flat", [size * size, *(self._sizes[other] for other in rest)])
                rows = self._add("Reshape", [turned, flat])
                places = self._numbers("diagonal", np.arange(0, size * size, size + 1).tolist())
                value, term = self._add("Gather", [rows, places], {"axis": 0}), letter + rest
        if summed := [i for i, letter in enumerate(term) if letter not in needed]:
            value = self._add("ReduceSum", [value, self._numbers("axes", summed)], {"keepdims": 0})
            term = "".join(letter for letter in term if letter in needed)
        return value, term

    def _product(self, left: ir.Value, a: str, right: ir.Value, b: str, needed: set[str]) -> tuple[ir.Value, str]:
        """Multiply two operands, and sum over the letters of both that are not needed any more."""
        shared = "".join(letter for letter in a if letter in b and letter in needed)
        summed = "".join(letter for letter in a if letter in b and letter not in needed)
        rows = "".join(letter for letter in a if letter not in b)
        columns = "".join(letter for letter in b if letter not in a)
        sides = [
            self._matrices(left, a, (shared, rows, summed)),
            self._matrices(right, b, (shared, summed, columns)),
        ]
        product = self._add("MatMul" if summed else "Mul", sides)
        letters = shared + rows + columns
        sizes = self._numbers("whole", [self._sizes[letter] for letter in letters])
        return self._add("Reshape", [product, sizes]), letters

    def _matrices(self, value: ir.Value, term: str, groups: tuple[str, str, str]) -> ir.Value:
        """Return a value with one axis for each group of letters."""
        value = self._turned(value, term, "".join(groups))
        sizes = [math.prod(self._sizes[letter] for letter in group) for group in groups]
        return self._add("Reshape", [value, self._numbers("matrices", sizes)])

    def _turned(self, value: ir.Value, term: str, wanted: str) -> ir.Value:
        order = [term.index(letter) for letter in wanted]
        return value if order == list(range(len(term))) else self._add("Transpose", [value], {"perm": order})
