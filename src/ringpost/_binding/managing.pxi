"""Context managers: a part of _core.pyx. Python's own are written in Python, where a signal handler may raise."""

from functools import wraps


@cython.final
cdef class _Managed:
    """What contextmanager() gives, for one `with`: between the generator and the statement there is nothing but C. Where
    CPython lets a handler in between the two, the statement forgets this: and the generator closes."""

    cdef object generator

    def __cinit__(self, generator not None):
        self.generator = generator

    def __enter__(self):
        try:
            return next(self.generator)
        except StopIteration:
            raise RuntimeError("the generator did not yield") from None

    def __exit__(self, kind, error, traceback):
        if error is None:
            if next(self.generator, self) is not self:
                raise RuntimeError("the generator did not stop")
            return False
        try:
            self.generator.throw(error)
        except StopIteration as stop:  # it suppresses the error, which may be of that kind itself
            return stop is not error
        except BaseException as raised:
            if raised is not error and not (isinstance(error, StopIteration) and raised.__cause__ is error):
                raise
            error.__traceback__ = traceback
            return False
        raise RuntimeError("the generator did not stop")


def contextmanager(function not None):
    """As contextlib's, in C."""
    @wraps(function)
    def make(*args, **keywords):
        return _Managed.__new__(_Managed, function(*args, **keywords))
    return make
