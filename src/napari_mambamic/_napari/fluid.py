"""What keeps the window fluid while a thread works."""

from __future__ import annotations

import gc
import sys
from contextlib import AbstractContextManager

from napari_mambamic.shared_setting import SharedSetting

_USUAL_INTERVAL = sys.getswitchinterval()
_SHORT_INTERVAL = 0.0005  # s


def fluid_window() -> AbstractContextManager[None]:
    """Let the window's thread go on soon whenever it may, in whatever thread this is held.

    What is there is left out of garbage collections, which stop all threads, for half a second
    where torch and napari are loaded; what is let go meanwhile is freed afterwards.  And a thread
    that computes gives way to another that waits after half a millisecond instead of five: each
    call of OpenGL has to wait anew, and a frame takes hundreds.
    """
    return _setting.held()


def _make() -> None:
    gc.freeze()
    sys.setswitchinterval(_SHORT_INTERVAL)


def _undo() -> None:
    sys.setswitchinterval(_USUAL_INTERVAL)
    gc.unfreeze()


_setting = SharedSetting(_make, _undo)
