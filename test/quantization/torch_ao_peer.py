"""torch.ao.quantization of the wheel, the oracle of these tests."""

import warnings


def peer():
    """Imported late and quietly: it warns of its own deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as module

    return module
