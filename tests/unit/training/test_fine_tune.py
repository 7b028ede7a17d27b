"""Training learns, resumes, stops and is saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_mambamic.classifier import load_classifier
from napari_mambamic.devices import choose_device
from napari_mambamic.errors import SamplesError, TrainingError
from napari_mambamic.networks import build_network
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.fine_tune import fine_tune, iter_fine_tune
from napari_mambamic.training.head import fit_linear
from napari_mambamic.training.processes import Processes
from napari_mambamic.training.run import Run
from napari_mambamic.training.samples import samples_from_arrays
from napari_mambamic.training.splits import split_samples

FAST = TrainConfig(epochs=3, batch_size=8, patch_size=32, device="cpu", validation_share=0.25)


def stripes(n=48, size=32, channels=3, dtype=np.uint8):
    """Two classes that anything can learn: stripes along y or along x, with noise."""
    rng = np.random.default_rng(0)
    wave = (np.arange(size) // 4 % 2).astype(float)
    labels = np.arange(n) % 2
    planes = np.where(labels[:, None, None] == 0, wave[:, None], wave[None, :])
    noisy = planes[..., None] * 0.6 + 0.2 + rng.normal(0, 0.05, (n, size, size, channels))
    return (noisy.clip(0, 1) * np.iinfo(dtype).max).astype(dtype), labels


def two_classes(**shape):
    images, labels = stripes(**shape)
    return samples_from_arrays(images, labels, class_names=["lying", "standing"])


def steady(config=FAST, **changes):
    """Without turning, as stripes along y and along x are the same but for a turn."""
    return replace(config, augmentation="none", **changes)


@pytest.fixture(scope="module")
def trained():
    samples = two_classes()
    epochs = []
    config = steady(epochs=6)
    checkpoint = fine_tune(
        samples, start=None, config=config, on_epoch=lambda p: epochs.append(p.history[-1].number)
    )
    return samples, checkpoint, epochs


def state_of(checkpoint):
    return checkpoint.network.state_dict()


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


# ---- learning ----------------------------------------------------------------------------------


def test_training_from_scratch_learns_to_tell_stripes(trained):
    _, checkpoint, epochs = trained
    assert epochs == [1, 2, 3, 4, 5, 6]
    report = checkpoint.report
    assert report["validation"]["overall_accuracy"] == 1
    assert report["history"][-1]["loss"] < 0.7 * report["history"][0]["loss"]
    assert report["split"]["counts"]["training"] == [18, 18]
    assert checkpoint.manifest.class_names == ("lying", "standing")
    assert checkpoint.manifest.temperature == report["calibration"]["temperature"]
    assert report["calibration"]["after"] is None  # of twelve samples it would be chance


def test_saved_weights_classify_as_the_checkpoint_does(trained, tmp_path):
    samples, checkpoint, _ = trained
    path = checkpoint.save(tmp_path / "stripes.safetensors")
    classifier = load_classifier(path, device="cpu")
    got = classifier.predict(samples.pixels)
    expected = checkpoint.classifier(device="cpu").predict(samples.pixels)
    assert np.allclose(got.probabilities, expected.probabilities, atol=0.01)  # stored as float16
    held = checkpoint.report["validation_indices"]
    assert got.probabilities[held].argmax(1).tolist() == samples.labels[held].tolist()
    assert checkpoint.report["validation_predictions"] == samples.labels[held].tolist()
    assert classifier.manifest.name == "stripes"
    report = json.loads((tmp_path / "stripes.report.json").read_text())
    assert report["config"]["epochs"] == 6


def test_the_temperature_divides_the_logits(trained, tmp_path):
    samples, checkpoint, _ = trained
    warmer = replace(checkpoint, manifest=replace(checkpoint.manifest, temperature=4.0))
    predicted = warmer.classifier(device="cpu").predict(samples.pixels[:5])
    shifted = np.exp(predicted.logits / 4)
    assert np.allclose(predicted.probabilities, shifted / shifted.sum(1, keepdims=True), atol=1e-6)


def test_the_head_alone_is_fitted_in_one_go(cells):
    images = cells.reshape(96, 96, 96, 3)
    which = np.repeat(np.arange(8), 12)
    chosen = np.isin(which, (1, 6))
    samples = samples_from_arrays(
        images[chosen], np.where(which[chosen] == 1, "eosinophil", "neutrophil")
    )
    begin = load_classifier(device="cpu").network.state_dict()
    checkpoint = fine_tune(samples, config=TrainConfig(mode="head", device="cpu"))
    assert checkpoint.report["validation"]["overall_accuracy"] == 1
    assert checkpoint.network.head.weight.shape[0] == 2
    assert 0 < checkpoint.report["history"][0]["loss"] < 0.2
    json.dumps(checkpoint.report, allow_nan=False)
    same_stem = state_of(checkpoint)["merges.0.reduction"]
    assert torch.equal(same_stem, begin["merges.0.reduction"])


@pytest.mark.parametrize("mode", ["last stage", "all"])
def test_a_mode_changes_what_it_says_and_nothing_else(cells, mode):
    images = cells.reshape(96, 96, 96, 3)[12:36]
    samples = samples_from_arrays(images, np.repeat(["a", "b"], 12))
    config = replace(FAST, mode=mode, epochs=1)
    checkpoint = fine_tune(samples, config=config)
    from napari_mambamic.weights.checkpoint import load_network
    from napari_mambamic.weights.store import locate_weights

    before, after = load_network(locate_weights("default"))[0].state_dict(), state_of(checkpoint)
    changed = {k for k in after if k in before and not torch.equal(before[k], after[k])}
    early = {k for k in changed if k.startswith(("stem", "stages.0", "stages.1", "stages.2"))}
    assert any(k.startswith("stages.3") for k in changed)
    assert bool(early) == (mode == "all")


def test_other_channels_than_those_of_the_start(trained):
    images, labels = stripes(channels=4, dtype=np.uint16)
    samples = samples_from_arrays(images // 16, labels, class_names=["lying", "standing"])
    checkpoint = fine_tune(samples, config=steady(mode="last stage", epochs=1))
    patch = checkpoint.manifest.patch
    assert patch.channels == ("channel 1", "channel 2", "channel 3", "channel 4")
    assert patch.mean == pytest.approx([0.5 / 16] * 4, rel=0.1)
    assert checkpoint.network.stem[0].weight.shape[1] == 4
    assert checkpoint.classifier(device="cpu").predict(samples.pixels[:2]).logits.shape == (2, 2)


def test_a_test_part_is_scored_and_not_learned_from():
    config = steady(epochs=2, test_share=0.25)
    checkpoint = fine_tune(two_classes(), start=None, config=config)
    counts = checkpoint.report["split"]["counts"]
    assert [sum(counts[part]) for part in ("training", "validation", "test")] == [24, 12, 12]
    assert checkpoint.report["test"]["n"] == 12
    assert checkpoint.manifest.metrics["test"]["n"] == 12


def test_the_papers_recipe_is_one_call():
    config = TrainConfig.published(epochs=7)
    assert (config.optimiser, config.learning_rate, config.weight_decay) == ("adam", 1e-4, 1e-4)
    assert (config.batch_size, config.validation_share, config.test_share) == (16, 0.2, 0.2)
    assert config.epochs == 7


def test_a_linear_head_separates_what_can_be_separated():
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        labels = np.arange(90) % classes
        embeddings = rng.normal(size=(90, 5)) + 6 * np.eye(5)[labels]
        weight, bias = fit_linear(embeddings, labels)
        assert weight.shape == (classes, 5)
        assert ((embeddings @ weight.T + bias).argmax(1) == labels).all()


# ---- the same again, and after an interruption -------------------------------------------------

_SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_fine_tune import FAST, two_classes
from napari_mambamic.training.fine_tune import fine_tune
fine_tune(two_classes(), start=None, config=FAST, folder=sys.argv[1])
"""


def test_a_run_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    tests = os.path.dirname(__file__)
    command = [sys.executable, "-c", _SCRIPT.format(tests=tests), str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.checkpoint").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.wait()
    done = torch.load(tmp_path / "last.checkpoint", weights_only=True)["step"]
    assert 0 < done < 12
    resumed = fine_tune(two_classes(), start=None, config=FAST, folder=tmp_path)
    whole = fine_tune(two_classes(), start=None, config=FAST)
    assert same(state_of(resumed), state_of(whole))
    assert [e["loss"] for e in resumed.report["history"]] == [
        e["loss"] for e in whole.report["history"]
    ]
    assert len(resumed.report["history"]) == 3


def test_a_folder_of_another_run_is_refused(tmp_path):
    fine_tune(two_classes(), start=None, config=replace(FAST, epochs=1), folder=tmp_path)
    with pytest.raises(TrainingError, match="other samples or settings"):
        fine_tune(two_classes(), start=None, config=replace(FAST, seed=5), folder=tmp_path)
    (tmp_path / "last.checkpoint").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"last\.checkpoint cannot be read"):
        fine_tune(two_classes(), start=None, config=FAST, folder=tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_full_disk_is_told_and_does_not_end_the_run(tmp_path, monkeypatch):
    original = torch.save

    def save_to_a_full_disk(state, path):
        original(state, "/dev/full")

    monkeypatch.setattr(torch, "save", save_to_a_full_disk)
    checkpoint = fine_tune(
        two_classes(), start=None, config=replace(FAST, epochs=2), folder=tmp_path
    )
    assert len(checkpoint.report["history"]) == 2
    assert "could not be kept" in checkpoint.report["notes"][0]
    assert not list(tmp_path.iterdir())


def test_the_users_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    fine_tune(two_classes(), start=None, config=replace(FAST, epochs=1))
    assert torch.equal(torch.rand(3), expected)


# ---- stopping ----------------------------------------------------------------------------------


def test_a_cancelled_run_leaves_its_best_weights():
    run = iter_fine_tune(two_classes(), start=None, config=steady(epochs=50))
    best = None
    for progress in run:
        best = progress.best or best
        if len(progress.history) == 2:
            run.close()
            break
    assert best.report["history"][-1]["number"] == 2
    assert best.classifier(device="cpu").predict(two_classes().pixels[:3]).logits.shape == (3, 2)


def test_progress_counts_steps_and_tells_the_time_left():
    seen = list(iter_fine_tune(two_classes(), start=None, config=steady(epochs=2)))
    assert (seen[-1].done, seen[-1].total) == (8, 8)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].seconds_left == 0
    assert any(p.message == "Validating" for p in seen)


@pytest.mark.parametrize("mode", ["all", "head"])
def test_probabilities_can_be_those_of_the_frequencies_of_the_training_samples(mode):
    """The weights of the classes are taken out of the network's last biases again."""
    images, labels = stripes()
    kept = np.r_[0:48:2, 1:16:2]  # 24 lying, 8 standing
    samples = samples_from_arrays(images[kept], labels[kept], class_names=["lying", "standing"])
    start = None if mode == "all" else "default"
    config = steady(epochs=2, mode=mode, balance="full")
    one, other = (
        fine_tune(samples, start=start, config=replace(config, prior=prior))
        for prior in ("balanced", "training")
    )
    trained_on = one.report["split"]["counts"]["training"]
    shift = state_of(other)["head.bias"] - state_of(one)["head.bias"]
    assert float(shift[0] - shift[1]) == pytest.approx(np.log(trained_on[0] / trained_on[1]))
    held_back = samples.pixels[other.report["validation_indices"]]
    told = other.classifier(device="cpu").predict(held_back).probabilities
    np.testing.assert_allclose(told.max(axis=1), other.report["validation_confidences"], atol=2e-3)


def test_patience_ends_a_run_that_gains_nothing_more():
    config = steady(epochs=40, patience=3)
    checkpoint = fine_tune(two_classes(), start=None, config=config)
    history = checkpoint.report["history"]
    assert len(history) < 40
    accuracies = [epoch["balanced_accuracy"] for epoch in history]
    assert max(accuracies[-3:]) <= max(accuracies[:-3])
    assert "without gain" in checkpoint.report["notes"][-1]


def test_an_infinite_loss_stops_the_run_and_says_where():
    run = iter_fine_tune(two_classes(), start=None, config=steady(epochs=20, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"became (nan|inf) in step \d+ .* learning rate"):
        list(run)


def test_short_memory_halves_what_is_computed_at_once(monkeypatch):
    sizes = []
    original = functional.cross_entropy

    def short(logits, target, **keywords):
        sizes.append(len(logits))
        if len(logits) > 2 and keywords:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(logits, target, **keywords)

    monkeypatch.setattr(functional, "cross_entropy", short)
    checkpoint = fine_tune(two_classes(), start=None, config=steady(epochs=1))
    assert sizes[:3] == [8, 4, 2]
    assert "2 patches at a time" in checkpoint.report["notes"][-1]
    assert len(checkpoint.report["history"]) == 1


def test_accumulated_gradients_are_those_of_the_whole_batch(monkeypatch):
    gradients = []
    for micro in (8, 3):
        samples = two_classes()
        split = split_samples(samples, validation_share=0.25)
        run = Run(samples, split, None, steady(), choose_device("cpu"), Processes())
        learner = run.learner
        learner.network.double().eval()  # BatchNorm in training would see other batches
        learner.micro_batch = micro
        patches, labels = learner.batches.of(split.training[:8])
        targets = functional.one_hot(labels, 2).double()
        learner.class_weights = learner.class_weights.double()
        learner.backward(patches.double(), targets, 1.0)
        gradients.append([p.grad.clone() for p in learner.network.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"epochs": 0}, TrainingError, "number of epochs is 0. Choose at least 1"),
        ({"batch_size": 0}, TrainingError, "batch size is 0. Choose at least 1"),
        ({"patch_size": 0}, TrainingError, "patch size is 0. Choose at least 1"),
        ({"seed": -1}, TrainingError, "seed is -1. Choose at least 0"),
        ({"test_share": -0.1}, TrainingError, "test share is -0.1. Choose 0 or more"),
        ({"test_share": 0.9}, TrainingError, "leave nothing to learn from"),
        ({"mode": "feet"}, TrainingError, "no mode 'feet'"),
        ({"balance": "some"}, TrainingError, "no balance 'some'"),
        ({"prior": "posterior"}, TrainingError, "no prior 'posterior'"),
        ({"augmentation": "wild"}, TrainingError, "no augmentation 'wild'"),
    ],
)
def test_settings_that_cannot_be_get_a_sentence(changes, error, sentence):
    with pytest.raises(error, match=sentence):
        fine_tune(two_classes(), config=replace(FAST, **changes))


def test_one_class_only_is_refused():
    images, _ = stripes(8)
    with pytest.raises(SamplesError, match="one class only"):
        fine_tune(samples_from_arrays(images, ["a"] * 8))


def test_a_network_in_training_is_not_the_one_that_is_given_back():
    checkpoint = fine_tune(two_classes(), start=None, config=steady(epochs=1))
    assert not checkpoint.network.training
    assert not any(p.requires_grad for p in checkpoint.network.parameters())
    assert type(checkpoint.network) is type(build_network("mambamic-t", n_classes=2))


def test_a_triton_that_cannot_be_imported_does_not_stop_training(tmp_path):
    # Such as that of torch 2.6, where setuptools is missing.
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("import a_module_that_is_missing")
    script = """
import torch
from napari_mambamic.training.config import TrainConfig
from napari_mambamic.training.optimiser import make_optimiser
make_optimiser(torch.nn.Linear(2, 2), TrainConfig(), 0.1)
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
