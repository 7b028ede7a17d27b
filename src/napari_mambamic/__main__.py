"""``python -m napari_mambamic``: the command line."""

import sys

from napari_mambamic.cli import main

sys.exit(main())
