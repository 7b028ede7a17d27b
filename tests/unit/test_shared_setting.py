"""Settings of the process are made by the first that wants them and undone by the last."""

from __future__ import annotations

import gc

import pytest

from napari_mambamic._napari.fluid import fluid_window
from napari_mambamic.shared_setting import SharedSetting


def test_the_first_user_makes_it_and_the_last_undoes_it():
    done = []
    setting = SharedSetting(lambda: done.append("made"), lambda: done.append("undone"))
    with setting.held():
        with pytest.raises(ValueError, match="in a run"), setting.held():
            raise ValueError("in a run")
        assert done == ["made"]
    assert done == ["made", "undone"]


def test_while_a_window_is_kept_fluid_garbage_is_not_looked_for_in_what_was_there():
    gc.unfreeze()
    with fluid_window():
        with fluid_window():
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0
