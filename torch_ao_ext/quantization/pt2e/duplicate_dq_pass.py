"""Gives every reader of a dequantized tensor a dequantize of its own."""

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._graph import inherit_meta, reads_sizes_only

__all__ = ["DuplicateDQPass"]


class DuplicateDQPass(PassBase):
    """A pass over an fx.GraphModule: one dequantize for each reader.

    A pattern `dequantize -> operator -> quantize` can then be matched and replaced
    without a look at the other readers.
    """

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Runs the pass; the result says whether the graph changed."""
        ops = _decomposed.operators()
        targets = (
            ops.dequantize_per_tensor.default, ops.dequantize_per_tensor.tensor,
            ops.dequantize_per_channel.default, ops.dequantize_per_token.default,
        )  # fmt: skip
        changed = False
        for node in list(graph_module.graph.nodes):
            if node.op != "call_function" or node.target not in targets:
                continue
            readers = [user for user in node.users if not reads_sizes_only(user)]
            for reader in readers[1:]:
                with graph_module.graph.inserting_before(reader):
                    copy = graph_module.graph.call_function(node.target, node.args, node.kwargs)
                inherit_meta(copy, node)
                reader.replace_input_with(node, copy)
                changed = True
        if changed:
            graph_module.recompile()
        return PassResult(graph_module, changed)
