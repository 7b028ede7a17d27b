"""Augmented patches stay patches, and change no more than a microscope would."""

from __future__ import annotations

import pytest
import torch

from napari_mambamic.training.augment import PRESETS, add_noise, defocus, make_augmentation


@pytest.mark.parametrize("preset", PRESETS)
def test_augmented_patches_stay_patches(preset):
    torch.manual_seed(0)
    patches = torch.rand(6, 3, 24, 24)
    augment = make_augmentation(preset)
    torch.manual_seed(1)
    changed = augment(patches)
    assert changed.shape == patches.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, patches) == (preset == "none")
    torch.manual_seed(1)
    assert torch.equal(augment(patches), changed)


@pytest.mark.parametrize("preset", ["bright-field", "fluorescence"])
def test_zoom_and_gain_can_be_turned_off(preset):
    torch.manual_seed(0)
    patches = torch.full((64, 1, 24, 24), 0.3)
    bright = make_augmentation(preset)(patches).mean(dim=(1, 2, 3))
    steady_light = make_augmentation(preset, gain=1.0)(patches).mean(dim=(1, 2, 3))
    assert bright.std() > 2 * steady_light.std()
    disc = (torch.hypot(*torch.meshgrid(*[torch.arange(-12.0, 12)] * 2, indexing="ij")) < 6).float()
    discs = disc.expand(64, 1, 24, 24) * 0.5
    areas, steady_areas = (
        (make_augmentation(preset, zoom=zoom, gain=1.0)(discs) > 0.25).float().sum((1, 2, 3))
        for zoom in (1.4, 1.0)
    )
    assert areas.std() > 3 * steady_areas.std()


def test_some_patches_are_put_out_of_focus():
    torch.manual_seed(0)
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1.0
    steps = defocus(edge.repeat(300, 1, 1, 1)).diff(dim=3).amax(dim=(1, 2, 3))
    blurred = steps < 0.99
    assert 0.2 < blurred.float().mean() < 0.45
    assert 0.15 < steps.min() < 0.3  # a Gaussian of 3 % of 64 px has 0.21 in its middle
    assert (steps == 1).float().mean() > 0.5


def test_faint_channels_are_not_drowned_in_noise():
    torch.manual_seed(0)
    patches = torch.rand(8, 2, 32, 32) * torch.tensor([0.01, 0.5]).view(1, 2, 1, 1)
    noisy = add_noise(patches)
    for channel in range(2):
        change = (noisy - patches)[:, channel].std() / patches[:, channel].std()
        assert 0.01 < change < 0.12
