"""divkd: why ensembles of neural networks work, and how to keep what they know in one cheap network.

The names of `__all__` are imported when they are first used, as most bring torch with them.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "BatchEnsemble",
    "DeepEnsemble",
    "InputError",
    "RunError",
    "distill",
    "evaluate",
    "export",
    "load_model",
    "member",
    "merge",
    "predict",
    "to_batch_ensemble",
]

if TYPE_CHECKING:
    from divkd.empirical.networks.ensembles import BatchEnsemble, DeepEnsemble, member, merge, to_batch_ensemble
    from divkd.empirical.use.distill import distill
    from divkd.empirical.use.evaluate import evaluate
    from divkd.empirical.use.export import export
    from divkd.empirical.use.predict import predict
    from divkd.empirical.use.restore import load_model
    from divkd.shared.errors import InputError, RunError
else:
    _ENSEMBLES = ("BatchEnsemble", "DeepEnsemble", "member", "merge", "to_batch_ensemble")
    _HOMES = {
        **dict.fromkeys(_ENSEMBLES, "empirical.networks.ensembles"),
        "distill": "empirical.use.distill",
        "evaluate": "empirical.use.evaluate",
        "export": "empirical.use.export",
        "predict": "empirical.use.predict",
        "load_model": "empirical.use.restore",
        **dict.fromkeys(("InputError", "RunError"), "shared.errors"),
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'divkd' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"divkd.{_HOMES[name]}"), name)
        globals()[name] = value  # asked once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
