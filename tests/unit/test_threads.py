"""A thread is started where a signal handler may raise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ringpost.threads import start_thread

_BEGIN = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"


class Alarm(Exception):
    """Raised by the handler."""


def raise_once_begun(monkeypatch: pytest.MonkeyPatch, what: Exception, begun: threading.Event) -> None:
    begin: Callable[..., Any] = getattr(threading, _BEGIN)

    def begin_and_raise(*args: Any, **keywords: Any) -> None:
        begin(*args, **keywords)
        assert begun.wait(10)
        raise what

    monkeypatch.setattr(threading, _BEGIN, begin_and_raise)


@pytest.mark.parametrize("what", [Alarm(), KeyError("of the handler")], ids=type)
def test_what_a_handler_raises_once_a_thread_has_begun_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch, what: Exception
) -> None:
    begun = threading.Event()
    thread = threading.Thread(target=begun.set)
    with monkeypatch.context() as patches:
        raise_once_begun(patches, what, begun)
        with pytest.raises(type(what)) as raised:
            start_thread(thread)
    assert raised.value is what
    thread.join()


def test_a_key_error_of_nobody_else_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **keywords: Any) -> None:
        raise KeyError("no thread")

    monkeypatch.setattr(threading, _BEGIN, fail)
    with pytest.raises(KeyError, match="no thread"):
        start_thread(threading.Thread(target=print))
