"""Quantization of exported graphs: prepare, calibrate or train, convert."""

import warnings

from torch import fx

from torch_ao_ext._flags import check_flags
from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase
from torch_ao_ext.quantization.pt2e._batch_norm import fold_batch_norms
from torch_ao_ext.quantization.pt2e._graph import (
    check_graph_module,
    copy_graph_module,
    remove_unused,
    where,
)
from torch_ao_ext.quantization.pt2e._in_place import drop_in_place
from torch_ao_ext.quantization.pt2e._offsets import move_offsets
from torch_ao_ext.quantization.pt2e._qat import (
    attach_batch_norms,
    detach_batch_norms,
    fold_trained,
)
from torch_ao_ext.quantization.pt2e._simplify import drop_dropouts, fold_pads
from torch_ao_ext.quantization.pt2e.convert import convert
from torch_ao_ext.quantization.pt2e.duplicate_dq_pass import DuplicateDQPass
from torch_ao_ext.quantization.pt2e.export_utils import disallow_train_eval, switch, training_nodes
from torch_ao_ext.quantization.pt2e.port_metadata_pass import PortNodeMetaForQDQ
from torch_ao_ext.quantization.pt2e.prepare import is_observer, prepare
from torch_ao_ext.quantization.pt2e.representation.rewrite import reference_representation_rewrite
from torch_ao_ext.quantization.quantizer.quantizer import Q_ANNOTATION_KEY, Quantizer
from torch_ao_ext.quantization.quantizer.utils import is_valid_annotation

__all__ = ["convert_pt2e", "prepare_pt2e", "prepare_qat_pt2e"]


def _check_prepare(function: str, model: fx.GraphModule, quantizer: Quantizer) -> None:
    check_graph_module(function, model)
    if not isinstance(quantizer, Quantizer):
        raise TypeError(
            f"{function}: argument 'quantizer' must be a torch_ao_ext.quantization.quantizer.Quantizer, "
            f"got {type(quantizer).__module__}.{type(quantizer).__qualname__}"
        )
    if any(is_observer(module) for module in model.modules()):
        raise ValueError(f"{function}: argument 'model' must not be prepared yet, got a model with observers")


def _annotate(
    function: str, model: fx.GraphModule, quantizer: Quantizer, required: bool
) -> fx.GraphModule:
    model = quantizer.transform_for_annotation(model)
    quantizer.annotate(model)
    quantizer.validate(model)
    annotations = [node.meta.get(Q_ANNOTATION_KEY) for node in model.graph.nodes]
    if required and not any(map(is_valid_annotation, annotations)):
        raise ValueError(
            f"{function}: argument 'quantizer' must annotate a node of the model, got none from "
            f"{type(quantizer).__name__}; set its config (set_global), and check that the model has "
            "operators that it knows"
        )
    return model


def prepare_pt2e(model: fx.GraphModule, quantizer: Quantizer) -> fx.GraphModule:
    """Folds batch norms and zero padding into convs, lets the quantizer annotate, inserts observers.

    A batch norm behind a relu stays; its offset moves into the bias of the next conv or linear where it
    can, so that the zeros of the relu stay exact zeros.

    Args:
        model: `torch.export.export(model.eval(), example_inputs).module()`; left as it is,
            its tensors are shared.
        quantizer: says what is quantized, e.g. an X86InductorQuantizer.

    Returns:
        The prepared graph module: run it on example data, then call convert_pt2e.

    Raises:
        TypeError: not an exported graph module, not a Quantizer.
        ValueError: exported in training mode, prepared before, or nothing to quantize.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).eval()
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        >>> prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        >>> _ = prepared(x)
        >>> convert_pt2e(prepared)(x).shape
        torch.Size([2, 4])
    """
    _check_prepare("prepare_pt2e", model, quantizer)
    return prepare_graph("prepare_pt2e", model, quantizer)


def prepare_graph(
    function: str, model: fx.GraphModule, quantizer: Quantizer, required: bool = True
) -> fx.GraphModule:
    """As `prepare_pt2e`.

    Args:
        function: its name, for messages.
        model: exported, not prepared yet.
        quantizer: annotates.
        required: whether it must annotate something.
    """
    training = training_nodes(model)
    if training:
        raise ValueError(
            f"{function}: argument 'model' must be exported in evaluation mode (model.eval() before "
            f"export), got training mode at {where(training[0])}"
        )
    model = copy_graph_module(model)
    drop_dropouts(model)  # what it returns is its input
    drop_in_place(model)
    fold_batch_norms(model)
    fold_pads(model)
    move_offsets(model)
    model = _annotate(function, model, quantizer, required)
    model = prepare(model, is_qat=False, obs_or_fq_callback=quantizer.prepare_obs_or_fq_callback)
    remove_unused(model)
    return disallow_train_eval(model)


def prepare_qat_pt2e(model: fx.GraphModule, quantizer: Quantizer) -> fx.GraphModule:
    """Inserts fake quantization for training; batch norms train with the weights that int8 will have.

    Conv (1-D to 3-D, transposed) and linear layers with a batch norm behind them become modules that
    quantize W gamma / sqrt(running_var + eps). `move_exported_model_to_eval` and `_to_train` switch
    the mode; eps, momentum and dropout stay.

    Args:
        model: `torch.export.export(model.train(), example_inputs).module()`; the graph is left as it
            is, its tensors are shared and trained.
        quantizer: with a config for training, e.g.
            `get_default_x86_inductor_quantization_config(is_qat=True)`.

    Returns:
        The prepared graph module: train it, then call convert_pt2e.

    Raises:
        TypeError: not an exported graph module, not a Quantizer.
        ValueError: prepared before, nothing to quantize, or a quantizer without fake quantization.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 1), torch.nn.BatchNorm1d(4)).train()
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
        >>> x = torch.randn(3, 2, 5)
        >>> prepared = prepare_qat_pt2e(torch.export.export(net, (x,)).module(), quantizer)
        >>> prepared(x).sum().backward()
        >>> convert_pt2e(prepared)(x).shape
        torch.Size([3, 4, 5])
    """
    _check_prepare("prepare_qat_pt2e", model, quantizer)
    return prepare_qat_graph("prepare_qat_pt2e", model, quantizer)


def prepare_qat_graph(
    function: str, model: fx.GraphModule, quantizer: Quantizer, required: bool = True
) -> fx.GraphModule:
    """As `prepare_qat_pt2e`; arguments as `prepare_graph`."""
    model = copy_graph_module(model)
    drop_in_place(model)
    fold_pads(model)
    norms = detach_batch_norms(model)
    model = _annotate(function, model, quantizer, required)
    model = prepare(model, is_qat=True, obs_or_fq_callback=quantizer.prepare_obs_or_fq_callback)
    if required and not any(isinstance(module, FakeQuantizeBase) for module in model.modules()):
        raise ValueError(
            f"{function}: argument 'quantizer' must have a config for training (is_qat=True), got one "
            "with observers only"
        )
    attach_batch_norms(model, norms)
    return disallow_train_eval(model)


def convert_pt2e(
    model: fx.GraphModule,
    use_reference_representation: bool = False,
    fold_quantize: bool = True,
    strict: bool = False,
) -> fx.GraphModule:
    """Replaces the observers of a calibrated model by quantize and dequantize operators.

    The result computes in float between them; `torch_ao_ext.lower` makes int8 operators
    of it, torch.compile fuses it by itself.

    Args:
        model: from prepare_pt2e, calibrated, or from prepare_qat_pt2e, trained; left as it is.
        use_reference_representation: write the model in integer arithmetic of ATen operators alone
            (pt2e.representation.reference_representation_rewrite): a slow definition, not for lower.
        fold_quantize: store weights as integers; False keeps them float behind a quantize.
        strict: raise when nothing is quantized, instead of a warning.

    Returns:
        A new graph module.

    Raises:
        TypeError: not a graph module, a flag that is no bool.
        ValueError: an observer without data, by node and line; an unsupported dtype;
            with use_reference_representation, an operator without such a form.
    """
    check_graph_module("convert_pt2e", model)
    check_flags(
        "convert_pt2e",
        use_reference_representation=use_reference_representation,
        fold_quantize=fold_quantize,
        strict=strict,
    )
    model = copy_graph_module(model)
    fold_trained(model)
    if training_nodes(model):
        switch(model, training=False)
        drop_dropouts(model)
    quantized = convert(model, fold_quantize)
    if not quantized:
        message = "convert_pt2e: argument 'model' must hold observers of tensors to quantize, got none"
        if strict:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    DuplicateDQPass()(model)
    PortNodeMetaForQDQ()(model)
    model.recompile()
    if use_reference_representation:
        model = reference_representation_rewrite(model)
    return disallow_train_eval(model)
