"""The modules of torch.ao in the installed torch."""

import importlib
import pkgutil
import warnings


def module_names():
    import torch.ao

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [m.name for m in pkgutil.walk_packages(torch.ao.__path__, "torch.ao.")]
    return ["torch.ao", *found]


def loaded(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            return None
