"""Finds parts of the exported graph in OpenVINO: the logits, and the operations after them."""

from collections.abc import Iterable
from typing import Any

from app.runtime.load import TYPICALITY

PROBABILITIES = "probabilities"


def find_output(graph: Any, name: str) -> Any:
    """Return the graph's output of that name."""
    (output,) = (output for output in graph.outputs if name in output.names)
    return output


def find_logits(graph: Any) -> Any:
    """Return the operation that computes the logits: it adds the bias to the last product before the probabilities."""
    end = find_output(graph, PROBABILITIES).get_node()
    head = next(node for node in _walk_up([end]) if node.get_type_name() == "MatMul")
    (bias,) = head.output(0).get_target_inputs()
    return bias.get_node()


def list_exact(graph: Any) -> list[str]:
    """Return the names of the operations after the network, calibration and typicality, which need more than 8 bits."""
    logits = find_logits(graph)
    network = {node.get_friendly_name() for node in _walk_up([logits])}
    ends = [output.get_node() for output in graph.outputs]
    names = {node.get_friendly_name(): node.get_type_name() for node in _walk_up(ends)}
    return [name for name, kind in names.items() if name not in network and kind not in {"Constant", "Result"}]


def find_held_out(graph: Any) -> tuple[Any, Any]:
    """Return the distances of the images, (N, 1), and the constant held-out distances that they are compared with."""
    end = find_output(graph, TYPICALITY).get_node()
    compare = next(node for node in _walk_up([end]) if node.get_type_name() in {"GreaterEqual", "LessEqual"})
    held_out, distances = sorted(
        (source.get_source_output() for source in compare.inputs()),
        key=lambda output: output.get_node().get_type_name() != "Constant",
    )
    return distances, held_out


def _walk_up(nodes: Iterable[Any]) -> Iterable[Any]:
    """Yield these operations and their dependencies, breadth first."""
    coming, seen = list(nodes), set()
    while coming:
        node = coming.pop(0)
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            yield node
            coming += [source.get_source_output().get_node() for source in node.inputs()]
