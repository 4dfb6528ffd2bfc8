"""The exported graph as OpenVINO reads it: where the network ends and its calibration begins."""

from typing import Any


def find_logits(graph: Any) -> Any:
    """Return the operation that gives the logits: what adds the bias to the network's one product of matrices."""
    (head,) = (node for node in graph.get_ops() if node.get_type_name() == "MatMul")  # all others are convolutions
    (bias,) = head.output(0).get_target_inputs()
    return bias.get_node()


def list_calibration(graph: Any) -> list[str]:
    """Return the names of all operations that come after the logits, but for the graph's end."""
    found: dict[str, None] = {}
    coming = [find_logits(graph)]
    while coming:
        after = [target.get_node() for output in coming.pop().outputs() for target in output.get_target_inputs()]
        after = [node for node in after if node.get_type_name() != "Result" and node.get_friendly_name() not in found]
        found |= dict.fromkeys(node.get_friendly_name() for node in after)
        coming += after
    return list(found)
