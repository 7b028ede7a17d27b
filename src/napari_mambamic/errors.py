"""The errors of this package: sentences for the person at the microscope.

Each message says what is wrong, what was got and what to do.
"""

from __future__ import annotations


class MambamicError(ValueError):
    """Something about the input or the request; the message is fit to be shown as it is."""


class ImageError(MambamicError):
    """An image, label image or list of points that cannot be used."""


class ChannelMismatch(MambamicError):
    """The image has other channels than the weights expect."""


class PixelSizeMissing(MambamicError):
    """A size in micrometres is needed and the image has none."""


class NothingToClassify(MambamicError):
    """There is no tile, object or point to classify."""


class WeightsError(MambamicError):
    """A weights file that is damaged, unsafe, or does not fit its manifest."""


class NetworkError(MambamicError):
    """A network that does not exist, or that cannot take what it was given."""


class DeviceError(MambamicError):
    """A device that was asked for and cannot be used."""


class ExportError(MambamicError):
    """A file that could not be written, or results that could not be read back."""


class EmbeddingError(MambamicError):
    """Embeddings that are missing, or that cannot be laid out or compared."""


class ClusterError(MambamicError):
    """A Dask cluster that does not answer, went away, or cannot do what it was asked."""


class SamplesError(MambamicError):
    """Samples that cannot be read, or that nothing can be learned from."""


class TrainingError(MambamicError):
    """A training run that cannot start or go on."""
