"""What keeps the window fluid while a thread works."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager

from napari_mambamic.shared_setting import SharedSetting


def fluid_window() -> AbstractContextManager[None]:
    """Leave what is there out of garbage collections for a while, in whatever thread it is held.

    They stop all threads, for half a second where torch and napari are loaded.  What is let
    go meanwhile is freed afterwards.
    """
    return _setting.held()


_setting = SharedSetting(gc.freeze, gc.unfreeze)
