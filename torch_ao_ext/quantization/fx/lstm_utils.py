"""An LSTM with an observer of the user's choice, for classes in `float_to_observed_mapping`."""

import copy
from typing import Any

from torch import nn

from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization._prepare import prepare
from torch_ao_ext.quantization.qconfig import QConfig

__all__: list[str] = []


def _get_lstm_with_individually_observed_parts(
    float_lstm: nn.LSTM, example_inputs: tuple[Any, ...], backend_config: Any = None,
    linear_output_obs_ctr: Any = None, sigmoid_obs_ctr: Any = None, tanh_obs_ctr: Any = None,
    cell_state_obs_ctr: Any = None, hidden_state_obs_ctr: Any = None, split_gates: bool = False,
) -> quantizable.LSTM:  # fmt: skip
    """An observed LSTM whose hidden state has an observer of its own.

    The int8 LSTM computes its gates and the cell state in float: what torch.ao observes between them has no
    place here.

    Args:
        float_lstm: with a `qconfig`.
        example_inputs: torch.ao's argument; the layer is observed without a run.
        backend_config: torch.ao's argument; the layer runs on this library's kernel.
        linear_output_obs_ctr: must be None.
        sigmoid_obs_ctr: must be None.
        tanh_obs_ctr: must be None.
        cell_state_obs_ctr: must be None.
        hidden_state_obs_ctr: makes the observers of the output and of the last hidden states; None: those of
            the qconfig.
        split_gates: must be False.

    Raises:
        ValueError: no qconfig, or an argument that must be None or False.
    """
    who = "_get_lstm_with_individually_observed_parts"
    inside = {
        "linear_output_obs_ctr": linear_output_obs_ctr, "sigmoid_obs_ctr": sigmoid_obs_ctr,
        "tanh_obs_ctr": tanh_obs_ctr, "cell_state_obs_ctr": cell_state_obs_ctr,
    }  # fmt: skip
    for name, value in inside.items():
        if value is not None:
            raise ValueError(f"{who}: argument '{name}' must be None: the gates run in float, got {value!r}")
    if split_gates:
        raise ValueError(f"{who}: argument 'split_gates' must be False: the gates are one product, got True")
    qconfig = getattr(float_lstm, "qconfig", None)
    if qconfig is None:
        raise ValueError(f"{who}: argument 'float_lstm' must have a qconfig, got none")
    layer = copy.copy(float_lstm)  # with the same parameters
    layer.qconfig = QConfig(hidden_state_obs_ctr or qconfig.activation, qconfig.weight)
    observed = prepare(nn.ModuleDict({"lstm": layer}), inplace=True)["lstm"]
    observed.qconfig = qconfig
    return observed


def _get_reference_quantized_lstm_module(
    observed_lstm: quantizable.LSTM, backend_config: Any = None
) -> nnq.LSTM:  # fmt: skip
    """The int8 LSTM of an observed one.

    Args:
        observed_lstm: run on example data.
        backend_config: torch.ao's argument.

    Raises:
        ValueError: it saw no data.
    """
    return nnq.LSTM.from_observed(observed_lstm)
