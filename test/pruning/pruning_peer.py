"""torch.ao.pruning as the oracle of these tests, imported without its warnings."""

import importlib
import warnings


def peer(name: str = ""):
    """The module torch.ao.pruning[.name].

    One of them changes the process's warning filters, hence the guard.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torch.ao.pruning" + (f".{name}" if name else ""))
