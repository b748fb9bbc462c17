"""How modules of a model are visited: each once, under the first of its names."""

from collections.abc import Callable, Iterator

from torch import nn

__all__ = ["children", "replaced"]


def children(module: nn.Module, name: str) -> Iterator[tuple[str, str, nn.Module]]:
    """(key, name in the model, part) of each part of a module.

    Args:
        module: may lose or exchange parts meanwhile.
        name: of the module in the model, "" for the model.
    """
    for key, child in list(module._modules.items()):
        if child is not None:
            yield key, f"{name}.{key}" if name else key, child


def replaced(
    root: nn.Module, make: Callable[[nn.Module, str], nn.Module], whole: Callable[[nn.Module, str], bool],
    place: Callable[[nn.Module, str, nn.Module], None],
) -> nn.Module:  # fmt: skip
    """The root, or what takes its place; parts come before what holds them.

    Args:
        root: a model.
        make: module and name -> the module that takes its place everywhere; itself to leave it.
        whole: module and name -> whether its parts stay as they are.
        place: called with a module, a key and what takes the place of its part there.
    """
    seen: dict[int, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> nn.Module:
        if id(module) not in seen:
            seen[id(module)] = module
            for key, path, child in children(module, name) if not whole(module, name) else ():
                new = visit(child, path)
                if new is not child:
                    place(module, key, new)
            seen[id(module)] = make(module, name)
        return seen[id(module)]

    return visit(root, "")
