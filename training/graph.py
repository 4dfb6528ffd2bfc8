"""The exported graph as OpenVINO reads it: where the network ends, and what must stay exact after it."""

from collections.abc import Iterable
from typing import Any

PROBABILITIES = "probabilities"
TYPICALITY = "typicality"


def find_output(graph: Any, name: str) -> Any:
    """Return the graph's output of that name."""
    (output,) = (output for output in graph.outputs if name in output.names)
    return output


def find_logits(graph: Any) -> Any:
    """Return the operation that gives the logits: what adds the bias to the last product before the probabilities."""
    end = find_output(graph, PROBABILITIES).get_node()
    head = next(node for node in _walk_up([end]) if node.get_type_name() == "MatMul")
    (bias,) = head.output(0).get_target_inputs()
    return bias.get_node()


def list_exact(graph: Any) -> list[str]:
    """Return the names of all operations but the network's: calibration and typicality, which 8 bits would spoil."""
    logits = find_logits(graph)
    network = {node.get_friendly_name() for node in _walk_up([logits])}
    ends = [output.get_node() for output in graph.outputs]
    names = {node.get_friendly_name(): node.get_type_name() for node in _walk_up(ends)}
    return [name for name, kind in names.items() if name not in network and kind not in {"Constant", "Result"}]


def find_held_out(graph: Any) -> tuple[Any, Any]:
    """Return the distances of the images, (N, 1), and the constant held-out ones that typicality compares them with."""
    end = find_output(graph, TYPICALITY).get_node()
    compare = next(node for node in _walk_up([end]) if node.get_type_name() in {"GreaterEqual", "LessEqual"})
    held_out, distances = sorted(
        (source.get_source_output() for source in compare.inputs()),
        key=lambda output: output.get_node().get_type_name() != "Constant",
    )
    return distances, held_out


def _walk_up(nodes: Iterable[Any]) -> Iterable[Any]:
    """Give these operations and all that they depend on, the nearest first, each once."""
    coming, seen = list(nodes), set()
    while coming:
        node = coming.pop(0)
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            yield node
            coming += [source.get_source_output().get_node() for source in node.inputs()]
