"""Programs of Paddle and ONNX: written from a graph, and run."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, inference, nn
from paddle.static import InputSpec

from unimo.errors import CapabilityError, ConfigError
from unimo.inference.export.graphs import SIZES, Arrays, Graph
from unimo.nn.kernels import paddle_kernels

logger = logging.getLogger(__name__)
OPSET = 17
"""Version of the operators of ONNX, in which a layer norm is one."""
_ONNX_BYTES = 2_000_000_000
"""Limit of the format, of which the graph needs a little."""
Program = Callable[[Arrays], dict[str, np.ndarray]]


class _Traced(nn.Layer):
    """A graph as the layer whose forward pass is recorded."""

    def __init__(self, owner: nn.Layer, graph: Graph) -> None:
        super().__init__()
        self.owner, self.graph = owner, graph

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        # Recorded as it runs: Paddle's rewriting of Python code knows less of Python than is used here.
        return paddle.jit.not_to_static(self.run)(inputs)

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        names = (each.name for each in self.graph.inputs)
        return list(self.graph.run(dict(zip(names, inputs, strict=True))).values())


def check_onnx() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        ConfigError: it is not, with the command that installs it.
    """
    for module in ("paddle2onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f'--format onnx needs {module}: pip install -c constraints.txt -e ".[export]" (Python 3.10 '
                "and 3.11); --format paddle-inference needs nothing more"
            )


def check_size(owner: nn.Layer) -> None:
    """Check that the parameters of a layer go into one file of ONNX.

    Raises:
        CapabilityError: they do not.
    """
    size = sum(4 * int(parameter.size) for parameter in owner.parameters())
    if size >= _ONNX_BYTES:
        raise CapabilityError(
            f"the model has {size:,} bytes of parameters, and a file of ONNX less than {_ONNX_BYTES:,}; "
            "--format paddle-inference has no such limit"
        )


def live(owner: nn.Layer, graph: Graph) -> Program:
    """Return a graph as it runs here."""

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        with paddle.no_grad():
            found = graph.run({name: paddle.to_tensor(value) for name, value in arrays.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    owner.eval()
    return run


def write_paddle(owner: nn.Layer, graph: Graph, folder: Path) -> Program:
    """Write `NAME.json` and `NAME.pdiparams`, and return the program as Paddle's inference runs it.

    Args:
        owner: layer that has all parameters of the graph.
        graph: what is written.
        folder: folder to write into.
    """
    open_ = [[None if isinstance(size, str) else size for size in each.shape] for each in graph.inputs]
    specs = [InputSpec(shape, each.dtype, each.name) for shape, each in zip(open_, graph.inputs, strict=True)]
    owner.eval()
    with paddle.no_grad(), paddle_kernels():
        traced = paddle.jit.to_static(_Traced(owner, graph), input_spec=[specs], full_graph=True)
        paddle.jit.save(traced, str(folder / graph.name))
    return _paddle_program(folder, graph.name, _outputs(owner, graph))


def write_onnx(owner: nn.Layer, graph: Graph, folder: Path) -> Program:
    """Write `NAME.onnx`, and return the program as onnxruntime runs it; arguments as of `write_paddle`."""
    import onnx
    import onnxruntime
    import paddle2onnx

    write_paddle(owner, graph, folder)
    parts = [folder / f"{graph.name}{ending}" for ending in (".json", ".pdiparams")]
    path = folder / f"{graph.name}.onnx"
    # Another tool for optimizing installs packages while it runs.
    paddle2onnx.export(*map(str, parts), str(path), opset_version=OPSET, optimize_tool="None", verbose=False)
    for part in parts:
        part.unlink()
    names, model = _outputs(owner, graph), onnx.load(str(path))
    for name, output in zip(names, model.graph.output, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    onnx.save(model, str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    read = {each.name for each in session.get_inputs()}

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        found = session.run(names, {name: value for name, value in arrays.items() if name in read})
        return dict(zip(names, found, strict=True))

    return run


WRITERS: Mapping[str, Callable[[nn.Layer, Graph, Path], Program]] = {
    "paddle-inference": write_paddle,
    "onnx": write_onnx,
}
"""Format -> what writes a graph into a folder."""


def _outputs(owner: nn.Layer, graph: Graph) -> list[str]:
    """Return the names of the outputs, in their order."""
    return list(live(owner, graph)(graph.sample(SIZES[0])))


def _paddle_program(folder: Path, name: str, outputs: list[str]) -> Program:
    config = inference.Config(str(folder / f"{name}.json"), str(folder / f"{name}.pdiparams"))
    config.disable_glog_info()
    predictor: Any = inference.create_predictor(config)

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        for each in predictor.get_input_names():
            predictor.get_input_handle(each).copy_from_cpu(np.ascontiguousarray(arrays[each]))
        predictor.run()
        handles = [predictor.get_output_handle(each) for each in predictor.get_output_names()]
        return dict(zip(outputs, (handle.copy_to_cpu() for handle in handles), strict=True))

    return run
