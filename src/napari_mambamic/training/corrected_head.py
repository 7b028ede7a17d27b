"""A head that starts from what the weights say and learns from corrections.

z   logits of the weights, of which only their probabilities are known: log p, as good as z
x   embeddings, centred, and divided by their mean length
logits of the corrected head = z + W x + b, where W and b are small: without corrections they are 0,
and near a corrected tile they turn its class.  What the weights say of the tiles without a label
counts as much as a few labels do, so that the first corrections, which are of doubtful tiles, turn
no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import softmax

from napari_mambamic.errors import TrainingError

# Of a label against the wish for a small W: 0.1 for each of 768 dimensions of unit variance.
# `head.fit_linear` has 0.3, and more labels: here a few must leave tiles that are not like them.
_STRENGTH = 77.0
_BIAS = 0.1
_OPINION = 10.0  # labels that the opinion of the weights on all other tiles is worth
_NEIGHBOURS = 10  # tiles are alike that are as near as the tenth neighbour mostly is
_DOUBT = 0.1  # a label says little of tiles that are less alike, where alike is 0 to 1
_MOST_OPINIONS = 1000  # tiles that stand for all
_MOST_EXAMPLES = 2000
_UNKNOWN = 0.01  # probability of a class that the weights do not know


@dataclass(frozen=True)
class CorrectedHead:
    """What is added to the logits of the weights.

    Parameters
    ----------
    class_names : tuple of str
        Those of the weights first, then new ones.
    weight, bias : ndarray
        (n_classes, d) and (n_classes,), for embeddings as they are.
    n_labels : int
    examples : ndarray
        (m, d) some embeddings; what a linear head cannot say exactly, `save` fits to them.
    """

    class_names: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    n_labels: int
    examples: NDArray[np.float32]

    def probabilities(
        self, probabilities: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n, n_classes) from those of the weights (n, k) and embeddings (n, d); NaN stays NaN."""
        logits = _prior(probabilities, len(self.class_names))
        logits += embeddings @ self.weight.T + self.bias
        return np.asarray(softmax(logits, axis=1), np.float32)

    def save(self, start: str | Path, path: str | Path) -> Path:
        """Write weights whose head is corrected, to be used for Classify.

        Parameters
        ----------
        start : str or path
            The weights that made the probabilities.
        path : path
            Ends in ``.safetensors``; the manifest goes beside it.

        Raises
        ------
        TrainingError
            The weights have another head than this one was made for.
        MambamicError
            They cannot be read, or the files cannot be written.
        """
        import torch

        from napari_mambamic.classifier import TileClassifier
        from napari_mambamic.devices import choose_device
        from napari_mambamic.trust.reference import Reference
        from napari_mambamic.weights.checkpoint import SELF_TEST_PATCH, load_network, save_weights
        from napari_mambamic.weights.store import locate_weights

        path = Path(path).with_suffix(".safetensors")
        network, origin, beside = load_network(locate_weights(start))
        state = network.state_dict()
        k, count = len(origin.class_names), len(self.class_names)
        if self.class_names[:k] != origin.class_names or SELF_TEST_PATCH not in beside:
            raise TrainingError(
                f"The corrections were made on other weights than {origin.name!r}. Classify the "
                f"image again, and train with the corrections."
            )
        known = [state[f"head.{name}"].numpy() / origin.temperature for name in ("weight", "bias")]
        weight, bias = self.weight.copy(), self.bias.copy()
        weight[:k] += known[0]
        bias[:k] += known[1]
        if count > k:
            slope, start_at = _level_of(self.examples @ known[0].T + known[1], self.examples)
            weight[k:] += slope
            bias[k:] += start_at + np.log(_UNKNOWN)
        new_head = {"head.weight": weight, "head.bias": bias}
        state = state | {name: torch.from_numpy(array) for name, array in new_head.items()}
        network.head = torch.nn.Linear(weight.shape[1], count)
        manifest = replace(
            origin,
            name=path.stem,
            title=f"{path.stem}: {origin.name}, corrected on {self.n_labels} tiles",
            class_names=self.class_names,
            temperature=1.0,
            metrics={},
            # Distances are as they were; probabilities are not, so the calibration is void.
            trust={k: v for k, v in origin.trust.items() if k != "conformal"},
            training_data=(
                f"{origin.training_data}; the head was corrected on {self.n_labels} tiles labelled "
                f"by hand, and not validated"
            ),
        )
        patch: NDArray[Any] = beside[SELF_TEST_PATCH].numpy()
        half = {k: v.half().to(v.dtype) for k, v in state.items() if v.is_floating_point()}
        network.load_state_dict(state | half)  # as it is stored
        network.requires_grad_(False)
        judge = TileClassifier(network, manifest, choose_device("cpu"))
        logits = judge.predict(patch[np.newaxis]).logits[0]
        reference = Reference.from_tensors(beside)
        save_weights(network, path, manifest, self_test=(patch, logits), reference=reference)
        return path


def fit_corrected_head(
    probabilities: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    *,
    labelled: ArrayLike,
    labels: Sequence[str],
    class_names: Sequence[str],
) -> CorrectedHead:
    """Fit a head to corrections.

    Parameters
    ----------
    probabilities, embeddings : ndarray
        (n, k) and (n, d) float32 of all tiles, by the weights.
    labelled : array-like
        Numbers of the tiles with a label.
    labels : sequence of str
        Their classes.
    class_names : sequence of str
        Those of the weights, k of them.

    Raises
    ------
    TrainingError
        No tile is labelled, or the shapes do not fit together.
    """
    numbers = np.asarray(labelled, np.intp)
    if not len(numbers) or len(numbers) != len(labels):
        raise TrainingError(f"There are {len(numbers)} tiles with {len(labels)} labels. Label one.")
    if len(probabilities) != len(embeddings) or probabilities.shape[1] != len(class_names):
        raise TrainingError(
            f"Probabilities {probabilities.shape}, embeddings {embeddings.shape} and "
            f"{len(class_names)} classes do not belong together. Classify again."
        )
    names = tuple(dict.fromkeys([*class_names, *labels]))
    seen = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    known = embeddings[seen]
    middle = known.mean(axis=0)
    spread = float(np.sqrt(((known - middle) ** 2).sum(axis=1).mean())) + 1e-12
    others = np.setdiff1d(seen, numbers)
    others = others[:: -(-len(others) // _MOST_OPINIONS) or 1]
    told = np.array([names.index(label) for label in labels])
    tiles = np.concatenate([numbers, others])
    x = (embeddings[tiles] - middle).astype(np.float64) / spread
    # The bias is as weak as one dimension among many.
    x = np.concatenate([x, np.full((len(x), 1), _BIAS)], axis=1)
    prior = _prior(probabilities[tiles], len(names)).astype(np.float64)
    wanted = np.exp(prior - np.logaddexp.reduce(prior, axis=1, keepdims=True))
    wanted[: len(numbers)] = np.eye(len(names))[told]
    strength = np.full((len(tiles), 1), _STRENGTH)
    trust = _trust(probabilities, x[:, :-1], numbers, told, others)
    strength[len(numbers) :, 0] *= _OPINION / max(1, len(others)) * trust

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(len(names), -1)
        logits = prior + x @ w.T
        logits -= logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        gradient = (strength * (np.exp(logits - total) - wanted)).T @ x + w
        value = -(strength * wanted * (logits - total)).sum() + 0.5 * (w**2).sum()
        return float(value), gradient.ravel()

    start = np.zeros(len(names) * x.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    w = found.x.reshape(len(names), -1)
    weight = (w[:, :-1] / spread).astype(np.float32)
    bias = (_BIAS * w[:, -1] - weight @ middle).astype(np.float32)
    examples = known[:: -(-len(known) // _MOST_EXAMPLES)].copy()
    return CorrectedHead(names, weight, bias, len(labels), examples)


def _trust(
    probabilities: NDArray[np.float32],
    x: NDArray[np.float64],
    labelled: NDArray[np.intp],
    told: NDArray[np.intp],
    others: NDArray[np.intp],
) -> NDArray[np.float64]:
    """(n_others,) how often the weights were right on the labelled tiles that are like each other.

    Of the tiles of which they said the same; 1 where none of these is labelled.
    """
    said = probabilities.argmax(axis=1)
    trust = np.ones(len(others))
    x_labelled, x_others = x[: len(labelled)], x[len(labelled) :]
    near = min(_NEIGHBOURS, len(others) - 1)
    if near < 1:
        return trust
    between = cdist(x_others, x_others, "sqeuclidean")
    reach = np.median(np.partition(between, near, axis=1)[:, near]) + 1e-12
    for k in np.unique(said[labelled]):
        same, those = said[labelled] == k, said[others] == k
        distance = cdist(x_others[those], x_labelled[same], "sqeuclidean")
        alike = np.exp(-distance / reach)
        trust[those] = (_DOUBT + alike @ (told[same] == k)) / (_DOUBT + alike.sum(axis=1))
    return trust


def _level_of(
    logits: NDArray[np.float32], embeddings: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """The linear function of embeddings that is nearest to the level of their logits.

    Against that level, log sum exp, a new class has a fixed probability.
    """
    from sklearn.linear_model import RidgeCV

    ridge = RidgeCV(alphas=np.logspace(-3, 5, 17))
    ridge.fit(embeddings, np.logaddexp.reduce(logits.astype(np.float64), axis=1))
    return ridge.coef_.astype(np.float32), float(ridge.intercept_)


def _prior(probabilities: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """Logits (n, n_classes) that give the probabilities (n, k)."""
    prior = np.full((len(probabilities), n_classes), np.log(_UNKNOWN), np.float32)
    prior[:, : probabilities.shape[1]] = np.log(np.maximum(probabilities, 1e-12))
    return prior
