"""Builds the extension of the cffi binding: what it may call is read from the public header itself.

Run by setup.py (`cffi_modules`), from the top of the sources.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HEADER = Path("native/include/ringpost.h")
CALLS = Path("src/ringpost/_binding/_cffi/calls.h")
SOURCES = sorted(str(path) for path in Path("native/src").glob("*.c"))


def declarations(header: str) -> str:
    """A C header as cffi reads it: no preprocessor, no bodies; the compiler tells the values of macros."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.DOTALL)
    header = re.sub(
        r"^static (?:inline )?([^;{]*\))\s*\{(?:[^\n]*|.*?^)\}$",
        r"\1;",
        header,
        flags=re.DOTALL | re.MULTILINE,
    )
    header = re.sub(r"^#(?:include|ifndef|endif|define \w+_H)\b.*$", "", header, flags=re.MULTILINE)
    return re.sub(r"^(#define \w+) +(?! *\d+u?$).*$", r"\1 ...", header, flags=re.MULTILINE)


ffi = FFI()
ffi.cdef(declarations(HEADER.read_text()))
ffi.cdef(declarations(CALLS.read_text()))
ffi.set_source(
    "ringpost._binding._cffi._native",
    CALLS.read_text(),
    sources=SOURCES,
    include_dirs=["native/include"],
    depends=[str(path) for path in [CALLS, *Path("native").glob("*/*.h")]],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall"],
)
