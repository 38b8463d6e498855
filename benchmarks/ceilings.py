"""The ceilings of this machine: the highest speed of matrix products in float32 and eight bits, and of memory copies.

Each ceiling is the best of many runs of the installed runtimes: a speed that a program has reached.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import torch

from backends.timing import Rounds, time_rounds

SIDE = 2048
COPIED_BYTES = 256 << 20
ROUNDS = Rounds(3.0, warm_ups=0, until_steady=False)


def ceilings(threads: int) -> dict[str, float]:
    """Return float32_gops and int8_gops (a multiplication and an addition count as two), copy_gb_s (bytes read and
    written), and side (of the matrices)."""
    torch.set_num_threads(threads)
    operations = 2 * SIDE**3 / 1e9
    floats = torch.rand(SIDE, SIDE)
    bytes_ = torch.randint(-127, 127, (SIDE, SIDE), dtype=torch.int8)
    source, target = (torch.zeros(COPIED_BYTES, dtype=torch.uint8) for _ in range(2))
    float32 = [lambda: floats @ floats, _product("MatMul", np.float32, threads)]
    int8 = [lambda: torch._int_mm(bytes_, bytes_), _product("MatMulInteger", np.int8, threads)]
    return {
        "side": SIDE,
        "float32_gops": max(operations / _best(run) for run in float32),
        "int8_gops": max(operations / _best(run) for run in int8),
        "copy_gb_s": 2 * COPIED_BYTES / 1e9 / _best(lambda: target.copy_(source)),
    }


def _best(run: Callable[[], object]) -> float:
    """Return the seconds of the quickest of many runs."""
    return min(time_rounds({"run": run}, ROUNDS)["run"]) / 1e3


def _product(op_type: str, dtype: type, threads: int) -> Callable[[], object]:
    """Return a function that runs the product in ONNX Runtime. The right matrix is a constant, so that it is packed."""
    weight: np.ndarray = np.ones((SIDE, SIDE), dtype)
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    result = onnx.TensorProto.INT32 if op_type == "MatMulInteger" else element
    given = np.uint8 if op_type == "MatMulInteger" else dtype
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op_type, ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(given)), (SIDE, SIDE))],
        [onnx.helper.make_tensor_value_info("y", result, (SIDE, SIDE))],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds: dict[str, np.ndarray] = {"x": np.ones((SIDE, SIDE), given)}
    return lambda: session.run(None, feeds)
