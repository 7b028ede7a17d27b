"""Results of every kind."""

from __future__ import annotations

import pytest
from result_cases import CASES


@pytest.fixture(params=CASES)
def results(request):
    return CASES[request.param]()
