"""Tile and cell classification for napari with MambaMIC."""
