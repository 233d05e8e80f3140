"""Builds the native core and its Cython binding into one extension module."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

sources = sorted(str(path) for path in Path("native/src").glob("*.c"))
headers = sorted(str(path) for path in [*Path("native").glob("*/*.h"), *Path("src").rglob("*.px[di]")])

# For tests (make sanitize): what gcc's -fsanitize takes. Not optimised: that would take a minute to build.
sanitizers = os.environ.get("RINGPOST_SANITIZE")
sanitize = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"] if sanitizers else []
speed = ["-O0", "-g1", "-fno-omit-frame-pointer", "-Wno-tsan"] if sanitizers else ["-O2"]

core = Extension(
    "ringpost._binding._core",
    sources=["src/ringpost/_binding/_core.pyx", *sources],
    include_dirs=["native/include"],
    depends=headers,
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", *speed, *sanitize, "-fvisibility=hidden", "-Wall", "-Wextra"],
    extra_link_args=sanitize,
)

setup(
    ext_modules=cythonize(
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
)
