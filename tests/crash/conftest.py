from crash.fixtures import fork

__all__ = ["fork"]
