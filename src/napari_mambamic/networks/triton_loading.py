"""Importing Triton into a process that draws.

Triton and Mesa, which draws the window where there is no driver for the graphics card, each bring
an LLVM.  Imported in the plain way after a window was drawn, Triton's finds itself bound to Mesa's
and ends the process (pytorch/pytorch issue 96060 is of this kind).  torch imports Triton on its own
when it makes an optimiser.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@cache
def load_triton() -> Any:
    """Import Triton bound to its own LLVM; None where there is no Triton."""
    if find_spec("triton") is None:
        return None
    if not hasattr(os, "RTLD_DEEPBIND"):
        return import_module("triton")
    usual = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        return import_module("triton")
    finally:
        sys.setdlopenflags(usual)
