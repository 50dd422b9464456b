"""What a user hands over: networks named, copied and called so that nobody else sees what they do."""

import copy
import operator
from typing import Any

from torch import Tensor, nn

from divkd.shared.errors import InputError


def described(value: Any) -> str:
    """What `value` is, in a sentence.

    >>> described(nn.Linear), described(nn.ReLU()), described(None)
    ('the class Linear', 'a ReLU', 'None')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a {type(value).__name__}"


def reason(error: BaseException) -> str:
    """The first line of what `error` says, or its kind where it says nothing."""
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__


def memory(error: BaseException) -> bool:
    """Whether `error` is about memory that is used up, which no other network or image would mend."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def whole(name: str, value: Any, low: int) -> int:
    """`value` as an int; raises `InputError` unless it is a whole number from `low`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low:
        raise InputError(f"{name} {value!r} is not allowed; give a whole number from {low}")
    return number


def check_network(net: Any, name: str) -> nn.Module:
    """`net`, if it is a network; raises `InputError` otherwise."""
    if not isinstance(net, nn.Module):
        inner = isinstance(getattr(net, "net", None), nn.Module)
        mend = "its .net" if inner else "one made of it" if isinstance(net, type) else "an nn.Module"
        raise InputError(f"{name} is {described(net)}; give {mend}")
    return net


def answer(net: nn.Module, x: Tensor, own: bool = False) -> Tensor:
    """net(x), which leaves x as it is: the network gets a copy to write into, unless x is its `own`.

    Raises `InputError` where the answer is no tensor.
    """
    logits = net(x if own else x.clone())
    if not isinstance(logits, Tensor):
        mode = " in train mode" if net.training else ""
        raise InputError(
            f"{type(net).__name__} puts out {described(logits)}{mode}; wrap it in a module that returns the tensor of "
            "logits alone"
        )
    return logits


def copied(net: nn.Module) -> nn.Module:
    """A deep copy of `net`; raises `InputError` where it has none."""
    try:
        return copy.deepcopy(net)
    except Exception as error:  # whatever its own code raises; torch, of a tensor that hangs in a graph
        if memory(error):
            raise
        raise InputError(
            f"{type(net).__name__} cannot be copied ({reason(error)}); detach() the tensors that it keeps of a pass"
        ) from error
