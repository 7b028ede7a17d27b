"""What napari shows: the only folder that imports napari, magicgui, qtpy or superqt."""
