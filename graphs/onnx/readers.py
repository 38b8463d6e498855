"""Readers of ONNX nodes: linear layers, norms, convolutions, permutations, constants and shapes.

Every pass and every quantizer reads such facts here, and nowhere else.
"""

from dataclasses import dataclass

import onnx_ir as ir

from backends.tensor import Array

# The two middle axes change places, such as rows and columns, or heads and tokens; the outer two stay.
SWAP_MIDDLE_AXES = (0, 2, 1, 3)


def constant(value: ir.Value | None) -> Array | None:
    """Return the array of a value that is fixed in the graph, or None for an input or a computed value."""
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def matrix_shape(value: ir.Value | None) -> tuple[int, int] | None:
    """Return the shape of a constant matrix without computing its values, or None for any other value."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    shape = () if tensor is None else tuple(tensor.shape.numpy())
    return (shape[0], shape[1]) if len(shape) == 2 else None


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the shape of a value, or None unless every size is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that makes a value if it has this operator type, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def reshape_of(value: ir.Value | None) -> ir.Node | None:
    """Return the Reshape that makes a value if its sizes are constant, else None."""
    node = made_by(value, "Reshape")
    return node if node is not None and constant(node.inputs[1]) is not None else None


def per_channel(value: ir.Value | None, channels: int) -> Array | None:
    """Return a constant with one value for each channel of the last axis, as (channels,), or None for another value."""
    array = constant(value)
    fits = array is not None and array.size == channels and array.shape[-1:] == (channels,)
    return array.reshape(channels) if array is not None and fits else None


def read_permutation(node: ir.Node | None) -> tuple[int, ...] | None:
    """Return the axes of a Transpose in their new order, or None for another node.

    A Transpose without an order reverses its axes; their number must then be known, or the result is None.
    """
    if node is None or node.op_type != "Transpose":
        return None
    stated = node.attributes.get_ints("perm")
    if stated is not None:
        return tuple(stated)
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return None if shape is None else tuple(reversed(range(len(shape))))


@dataclass(frozen=True)
class Linear:
    """A Gemm or MatMul with a constant matrix: alpha * x @ weight + beta * bias.

    Each of x and weight may be transposed before the product. weight is the matrix as the graph holds it,
    (features_out, features_in) if transposes_weight, else the other way round. tensor holds its values, which may be
    computed only when they are read. bias may be computed by other nodes. A MatMul has no bias, transposes nothing, and
    its x may have any number of axes.
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    tensor: ir.TensorProtocol
    bias: ir.Value | None
    alpha: float
    beta: float
    transposes_x: bool
    transposes_weight: bool

    @property
    def output_axis(self) -> int:
        """The axis of the weight with one entry for each output: 0 or 1."""
        return 0 if self.transposes_weight else 1

    @property
    def features_out(self) -> int:
        return int(self.tensor.shape.numpy()[self.output_axis])

    @property
    def features_in(self) -> int:
        return int(self.tensor.shape.numpy()[1 - self.output_axis])

    @property
    def is_unscaled(self) -> bool:
        """Whether it computes x @ weight + bias for rows x, with the weight in either orientation."""
        return not self.transposes_x and self.alpha == 1 and self.beta == 1

    @property
    def is_plain(self) -> bool:
        """Whether it is unscaled, and its weight has a row for each output: a Gemm with transB=1 and nothing else."""
        return self.is_unscaled and self.transposes_weight

    @property
    def attributes(self) -> dict[str, int | float]:
        """The attributes of an equal Gemm that are not at their defaults."""
        found: dict[str, int | float] = {}
        if self.transposes_x:
            found["transA"] = 1
        if self.transposes_weight:
            found["transB"] = 1
        return found | {name: value for name, value in (("alpha", self.alpha), ("beta", self.beta)) if value != 1}


def read_linear(node: ir.Node | None) -> Linear | None:
    """Read a Gemm or MatMul whose second input is a constant matrix. Returns None for any other node."""
    if node is None or node.op_type not in ("Gemm", "MatMul") or node.inputs[0] is None:
        return None
    weight = node.inputs[1]
    if weight is None or matrix_shape(weight) is None:
        return None
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None  # matrix_shape
    number, ratio = node.attributes.get_int, node.attributes.get_float
    return Linear(
        node=node,
        x=node.inputs[0],
        weight=weight,
        tensor=tensor,
        bias=node.inputs[2] if len(node.inputs) > 2 else None,
        alpha=ratio("alpha", 1.0),
        beta=ratio("beta", 1.0),
        transposes_x=bool(number("transA", 0)),
        transposes_weight=bool(number("transB", 0)),
    )


@dataclass(frozen=True)
class Norm:
    """A LayerNormalization with one output: (x - mean) / sqrt(variance + epsilon) * scale + shift.

    Mean and variance are taken over the axes from `axis` on. scale and shift may be computed by other nodes; shift is
    None where the node has none.
    """

    node: ir.Node
    x: ir.Value
    scale: ir.Value
    shift: ir.Value | None
    axis: int
    epsilon: float

    @property
    def is_over_last_axis(self) -> bool:
        """Whether it normalizes over the last axis alone. An axis that counts from the front needs a known shape."""
        shape = self.node.outputs[0].shape or self.x.shape
        return self.axis == -1 or (shape is not None and self.axis == len(shape) - 1)


def read_norm(node: ir.Node | None) -> Norm | None:
    """Read a LayerNormalization that computes in float32. Returns None for any other node.

    A node that also outputs its mean or deviation gives None, too.
    """
    if node is None or node.op_type != "LayerNormalization" or len(node.outputs) != 1:
        return None
    x, scale = node.inputs[:2]
    attributes = node.attributes
    if x is None or scale is None or attributes.get_int("stash_type", 1) != 1:
        return None
    shift = node.inputs[2] if len(node.inputs) > 2 else None
    return Norm(node, x, scale, shift, attributes.get_int("axis", -1), attributes.get_float("epsilon", 1e-5))


@dataclass(frozen=True)
class Convolution:
    """A Conv or ConvTranspose with constant weights, between maps of known sizes (N, C, H, W).

    kernel, strides, dilations: rows, columns. pads: before the rows and columns, then after them. group: the number of
    groups of channels that are convolved separately.
    """

    x: ir.Value
    weight: ir.Value
    values: ir.TensorProtocol
    bias: ir.Value | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    group: int

    @property
    def is_full(self) -> bool:
        """Whether every output sees every channel of a window without gaps: one group, not dilated."""
        return self.group == 1 and self.dilations == (1, 1)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved with one kernel for it alone."""
        return self.group == self.input_shape[1] == self.output_shape[1]

    @property
    def makes_patches(self) -> bool:
        """Whether its strides are as large as its square kernel, and nothing is padded: no pixel is seen twice."""
        return self.strides == self.kernel and self.kernel[0] == self.kernel[1] > 1 and not any(self.pads)


def read_convolution(node: ir.Node, op_type: str = "Conv") -> Convolution | None:
    """Read a convolution of type `op_type` over rows and columns. Returns None for any other node.

    A convolution gives None, too, if its weight is computed, if a size is unknown, or if auto_pad describes its
    padding.
    """
    if node.op_type != op_type or node.inputs[0] is None or node.inputs[1] is None:
        return None
    x, weight = node.inputs[0], node.inputs[1]
    values, before, after = ir.convenience.get_const_tensor(weight), static_shape(x), static_shape(node.outputs[0])
    if values is None or before is None or after is None or not len(values.shape) == len(before) == len(after) == 4:
        return None
    attributes = node.attributes
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    rows, columns = (int(size) for size in values.shape.numpy()[2:])
    row_step, column_step = attributes.get_ints("strides", (1, 1))
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    row_gap, column_gap = attributes.get_ints("dilations", (1, 1))
    return Convolution(
        x=x,
        weight=weight,
        values=values,
        bias=node.inputs[2] if len(node.inputs) > 2 else None,
        input_shape=before,
        output_shape=after,
        kernel=(rows, columns),
        strides=(row_step, column_step),
        pads=(top, left, bottom, right),
        dilations=(row_gap, column_gap),
        group=attributes.get_int("group", 1),
    )
