"""What a handle of a queue or topic was told of its messages: enough to make its codec, here or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringpost.typed import MakeCodec, OwnCodec


@dataclass(frozen=True)
class Speech:
    """Pickled with the handle."""

    type: Any = None
    codec: OwnCodec[Any] | None = None
    pickle: bool = False

    @property
    def is_checked(self) -> bool:
        """Can a message be one that does not belong there?"""
        return self.type is not None or self.codec is not None

    def make_codec(self) -> MakeCodec | None:
        """None: the usual one. Raises TypeError, ValueError."""
        if not self.is_checked and not self.pickle:
            return None  # and who uses nothing else imports nothing else
        from ringpost.typed import codec_for

        return codec_for(self.type, self.codec, self.pickle)
