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
from typing import Any


@cache
def load_triton() -> Any:
    """Import Triton bound to its own LLVM; None where there is none that can be imported.

    torch goes on without it, too.  Triton 3.2, which comes with torch 2.6, needs setuptools and
    does not ask for it.
    """
    usual = sys.getdlopenflags() if hasattr(os, "RTLD_DEEPBIND") else None
    if usual is not None:
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        return import_module("triton")
    except ImportError:
        return None
    finally:
        if usual is not None:
            sys.setdlopenflags(usual)
