"""Picks the native binding. RINGPOST_BINDING forces one; a broken one is a loud error, no silent fallback."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from typing import cast

from ringpost._binding.contract import NAMES, Binding

_MODULES = {"cython": "ringpost._binding._core", "cffi": "ringpost._binding._cffi"}


def default() -> str:
    """Cython's is several times as fast; PyPy knows only cffi's."""
    return "cffi" if platform.python_implementation() == "PyPy" else "cython"


def load(name: str) -> Binding:
    """The binding `name`. Raises ImportError with advice."""
    if name not in _MODULES:
        raise ImportError(f"RINGPOST_BINDING={name!r}: there is only {', '.join(_MODULES)}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        if "nterpreter" in str(error):  # that is all that CPython and Cython tell
            raise ImportError(
                f"ringpost works in the main interpreter only ({error}); use processes, or threads, "
                "instead of subinterpreters"
            ) from error
        raise ImportError(f"ringpost's {name} binding does not load ({error}); {_advice(name)}") from error
    missing = [each for each in NAMES if not hasattr(module, each)]
    if missing:
        raise ImportError(f"ringpost's {name} binding lacks {', '.join(missing)}: reinstall it")
    return cast(Binding, module)


def _advice(name: str) -> str:
    if name == "cffi" and importlib.util.find_spec("_cffi_backend") is None:
        return "pip install 'ringpost[cffi]'"
    return (
        "reinstall ringpost, with a C compiler and the Python headers at hand if there is no wheel for this "
        "Python"
    )


binding: Binding = load(os.environ.get("RINGPOST_BINDING", default()))
