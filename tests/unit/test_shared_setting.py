"""Settings of the process are made by the first that wants them and undone by the last."""

from __future__ import annotations

import pytest

from napari_mambamic.shared_setting import SharedSetting


def test_the_first_user_makes_it_and_the_last_undoes_it():
    done = []
    setting = SharedSetting(lambda: done.append("made"), lambda: done.append("undone"))
    with setting.held():
        with pytest.raises(ValueError, match="in a run"), setting.held():
            raise ValueError("in a run")
        assert done == ["made"]
    assert done == ["made", "undone"]
