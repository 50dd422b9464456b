"""What a user hands over: networks named, copied and called so that nobody else sees what they do.

What a network eats is a tensor (B, ...), a tuple for its places or a dict for its names: net(x), net(*x), net(**x).
"""

import copy
import difflib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from divkd.shared.errors import InputError, unknown


def described(value: Any) -> str:
    """What `value` is, in a sentence.

    >>> described(nn.Linear), described(nn.ReLU()), described(None)
    ('the class Linear', 'a ReLU', 'None')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a {type(value).__name__}"


def shown(value: Any) -> str:
    """`value` as it is written where that is short, or what it is."""
    return (
        f"{value!r:.60}"
        if isinstance(value, str | bytes | int | float | tuple) and "\n" not in f"{value!r:.60}"
        else (described(value))
    )


def choice(kind: str, value: Any, allowed: Iterable[str]) -> str:
    """`value`, if it is one of the `allowed` names; raises `InputError` otherwise."""
    if not isinstance(value, str) or value not in allowed:
        raise unknown(kind, value if isinstance(value, str) else described(value), allowed)
    return value


def reason(error: BaseException) -> str:
    """The first line of what `error` says, or its kind where it says nothing."""
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__


def memory(error: BaseException) -> bool:
    """Whether `error` is about memory that is used up, which no other network or image would mend."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """`value` as an int; raises `InputError` unless it is a whole number from `low` to `high`."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError, ValueError):  # of a tensor too
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        upper = "" if high == math.inf else f" to {high}"
        raise InputError(f"{name} {shown(value)} is not allowed; give a whole number from {low}{upper}")
    return number


def check_network(net: Any, name: str) -> nn.Module:
    """`net`, if it is a network; raises `InputError` otherwise."""
    if not isinstance(net, nn.Module):
        inner = isinstance(getattr(net, "net", None), nn.Module)
        mend = "its .net" if inner else "one made of it" if isinstance(net, type) else "an nn.Module"
        raise InputError(f"{name} is {described(net)}; give {mend}")
    return net


class Moved(NamedTuple):
    """Inputs that are moved inside a network: `delta` is added to what its module `name` puts out."""

    inputs: Any
    delta: Tensor
    name: str


def mapped(change: Callable[[Tensor], Tensor], x: Any) -> Any:
    """`x` with each of its tensors changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, Moved):
        return Moved(mapped(change, x.inputs), change(x.delta), x.name)
    if isinstance(x, Mapping):
        return {key: mapped(change, part) for key, part in x.items()}
    return tuple(mapped(change, part) for part in x) if isinstance(x, tuple | list) else x


def taken(x: Any, index: int | slice) -> Any:
    """The part `index` of each tensor of `x`."""
    return mapped(lambda part: part[index], x)


def tensors(x: Any) -> list[Tensor]:
    """The tensors of `x`, in order."""
    found: list[Tensor] = []
    mapped(lambda part: found.append(part) or part, x)  # type: ignore[func-returns-value]
    return found


def shape_of(x: Any) -> str:
    """The shapes of the tensors of `x`, in words."""
    return ", ".join(str(tuple(part.shape)) for part in tensors(x)) or described(x)


def together(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The arguments of a call as one: a tensor, a tuple or a dict."""
    args = args if any(part is not None for part in args) else ()
    if args and named:
        raise InputError("some inputs are given by place and some by name; give all by place, or all by name")
    if not args and not named:
        raise InputError("no input is given; give what the network eats")
    return args[0] if len(args) == 1 else args or dict(named)


def module_at(net: nn.Module, name: str) -> nn.Module:
    """The module `name` of `net`; raises `InputError` where there is none."""
    known: dict[str, nn.Module] = {other: part for other, part in net.named_modules() if other}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", such as {close[0] if close else next(iter(known))!r}" if known else ""
        raise InputError(f"{type(net).__name__} has no module {name!r}; give a name of named_modules(){hint}")
    return known[name]


@contextmanager
def hooked(net: nn.Module, name: str, hook: Callable[[Any], Any]) -> Iterator[None]:
    """What module `name` of `net` puts out is changed to hook(it), unless that is None."""
    handle = module_at(net, name).register_forward_hook(lambda _, __, output: hook(output))
    try:
        yield
    finally:
        handle.remove()


def output_at(net: nn.Module, x: Any, name: str) -> Tensor:
    """What the module `name` of `net` puts out on the way of `x`; raises `InputError` where it is no float tensor."""
    seen: list[Any] = []
    with hooked(net, name, seen.append):
        answer(net, x)
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or not seen[0].is_floating_point():
        what = f"is called {len(seen)} times" if len(seen) != 1 else f"puts out {described(seen[0])}"
        raise InputError(f"module {name!r} {what}; perturb_at wants one that puts out floats, once: an embedding")
    return seen[0]


def answer(net: nn.Module, x: Any, own: bool = False) -> Tensor:
    """net(x), which leaves x as it is: the network gets a copy to write into, unless x is its `own`.

    Raises `InputError` where the answer is no tensor.
    """
    if isinstance(x, Moved):
        with hooked(net, x.name, lambda output: output + x.delta):
            return answer(net, x.inputs, own)
    x = x if own else mapped(Tensor.clone, x)
    logits = net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)
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
