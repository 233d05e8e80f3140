"""The cffi binding of native/include/ringpost.h: see contract.py for what each name promises.

Every call of the native core drops the GIL. Signal handlers may run, and raise, between any two steps of
these functions; so what a call has got is recorded by the native core in memory that was there before, or
moved in one step. One exception of a handler loses nothing; a second one, while the first is being dealt
with, may leave messages in this process's hands until it ends.
"""

from __future__ import annotations

from contextlib import contextmanager as contextmanager  # a handler that raises in there: see contract.py
from typing import TYPE_CHECKING

from ringpost._binding._cffi.delivery import Delivery as Delivery
from ringpost._binding._cffi.delivery import any_ttl as any_ttl
from ringpost._binding._cffi.delivery import hand_out as hand_out
from ringpost._binding._cffi.exact import is_exact as is_exact
from ringpost._binding._cffi.group import Group as Group
from ringpost._binding._cffi.log import Log as Log
from ringpost._binding._cffi.log import attach as attach
from ringpost._binding._cffi.log import collect as collect
from ringpost._binding._cffi.log import create as create
from ringpost._binding._cffi.log import remove as remove
from ringpost._binding._cffi.native import ffi, lib
from ringpost._binding._cffi.place import Loan as Loan
from ringpost._binding._cffi.place import View as View
from ringpost._binding._cffi.stored import Stored as Stored
from ringpost._binding._cffi.stored import find_frame as find_frame
from ringpost._binding._cffi.stored import frames_from_end as frames_from_end
from ringpost._binding._cffi.stored import let_go as let_go
from ringpost._binding._cffi.watch import Watch as Watch

if TYPE_CHECKING:  # that each is what the contract says
    from ringpost._binding import contract

    def _log(log: Log) -> contract.NativeLog:
        return log

    def _group(group: Group) -> contract.NativeGroup:
        return group

    def _delivery(delivery: Delivery) -> contract.Delivery:
        return delivery

    def _rest(watch: Watch, loan: Loan, view: View) -> tuple[contract.Watch, contract.Loan, contract.View]:
        return watch, loan, view

    def _stored(stored: Stored) -> contract.Stored:
        return stored


NAME = "cffi"


def layout_version() -> int:
    return int(lib.rp_layout_version())


def status_text(status: int) -> str:
    return str(ffi.string(lib.rp_status_text(status)).decode())


def subject_matches(pattern: str, subject: str) -> bool:
    """Does a subject match a pattern with * (one word) and # (any number of words)?"""
    encoded, text = pattern.encode(), subject.encode()
    return bool(lib.rp_subject_matches(encoded, len(encoded), text, len(text)))
