"""Builds the native core into the extension modules of the two bindings: Cython's is CPython's alone."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from setuptools import Extension, setup

# For tests (make sanitize): what gcc's -fsanitize takes. Not optimised: that would take a minute to build.
SANITIZERS = os.environ.get("RINGPOST_SANITIZE")
SANITIZE = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []
SPEED = ["-O0", "-g1", "-fno-omit-frame-pointer", "-Wno-tsan"] if SANITIZERS else ["-O2"]
FLAGS = ["-std=c11", *SPEED, *SANITIZE, "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror=implicit"]


def cython_modules() -> list[Extension]:
    from Cython.Build import cythonize

    core = Extension(
        "ringpost._binding._core",
        sources=["src/ringpost/_binding/_core.pyx", *sorted(map(str, Path("native/src").glob("*.c")))],
        include_dirs=["native/include"],
        depends=sorted(map(str, [*Path("native").glob("*/*.h"), *Path("src").rglob("*.px[di]")])),
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=FLAGS,
        extra_link_args=SANITIZE,
    )
    modules: list[Extension] = cythonize(
        [core],
        language_level="3",
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "auto_pickle": False,
            "autotestdict": False,
            "freethreading_compatible": True,
        },
    )
    return modules


setup(
    ext_modules=cython_modules() if platform.python_implementation() == "CPython" else [],
    cffi_modules=[] if SANITIZERS else ["native/cffi_build.py:ffi"],
)
