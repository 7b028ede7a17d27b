"""Several processes train one network together; they are real ones, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from dataclasses import replace
import numpy as np
from napari_mambamic import TrainConfig, fine_tune, samples_from_arrays
from napari_mambamic.errors import TrainingError

rng = np.random.default_rng(0)
labels = np.arange(48) % 2
pixels = rng.integers(0, 60, (48, 32, 32, 3)).astype(np.uint8)
pixels[labels == 1, 8:24, 8:24] += 150
samples = samples_from_arrays(pixels, labels, class_names=["empty", "full"])
config = TrainConfig(
    epochs=3, batch_size=8, patch_size=32, device="cpu", augmentation="none", averaging=0.9,
    learning_rate=1e-3,
)
said = []
checkpoint = fine_tune(
    samples, start=None, config=config, folder=sys.argv[1] + "/state", on_epoch=said.append
)
import os
number = os.environ.get("RANK", "0")
checkpoint.save(f"{sys.argv[1]}/from-{number}.safetensors")
say("epochs told by process", number, len(said), checkpoint.report["validation"]["n"])
try:
    fine_tune(samples, start=None, config=replace(config, batch_size=1))
except TrainingError as error:
    say(error)
"""


# At once, or the words of two processes would be mixed.
SAY = """
import os

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def in_two_processes(script, *arguments):
    """Run a script as two processes, and give what they say."""
    script.write_text(SAY + script.read_text())
    start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", *start, str(script), *map(str, arguments)],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_end_with_the_same_weights_and_take_no_batch_they_cannot_share(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    said = in_two_processes(script, tmp_path)
    assert "epochs told by process 0 3 10" in said
    assert "epochs told by process 1 0 10" in said
    first, second = (load_file(tmp_path / f"from-{n}.safetensors") for n in (0, 1))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0)
    assert (tmp_path / "state" / "last.checkpoint").exists()
    assert said.count("2 processes share batches of 1 samples.") == 2


def test_gradients_and_statistics_are_means_over_the_processes(tmp_path):
    script = tmp_path / "average.py"
    script.write_text(
        """
import torch
from napari_mambamic.training.processes import Processes

processes = Processes.found()
network = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.BatchNorm1d(1))
torch.manual_seed(processes.number)
network[0].weight.data.normal_()
processes.begin_alike(network)
weights = network[0].weight.data.clone()
network[0].weight.grad = torch.full((1, 2), float(processes.number))
network[1].running_mean.fill_(10.0 * processes.number)
processes.average_gradients(network)
processes.average_buffers(network)
import numpy as np
rows = processes.joined(np.full((processes.number + 1, 2), processes.number, np.float32))
say(
    "process", processes.number, processes.count, network[0].weight.grad.tolist(),
    network[1].running_mean.item(), rows[:, 0].tolist(), processes.average(float(processes.number)),
    processes.share(np.arange(5)).tolist(), [round(v, 4) for v in weights.flatten().tolist()],
)
"""
    )
    said = in_two_processes(script)
    torch.manual_seed(0)
    alike = [round(v, 4) for v in torch.empty(1, 2).normal_().flatten().tolist()]
    both = "2 [[0.5, 0.5]] 5.0 [0.0, 1.0, 1.0] 0.5"
    assert f"process 0 {both} [0, 1, 2] {alike}" in said
    assert f"process 1 {both} [3, 4] {alike}" in said
