"""``python -m napari_mambamic``: the command line."""

import sys

from napari_mambamic.cli import main

if __name__ == "__main__":
    sys.exit(main())
