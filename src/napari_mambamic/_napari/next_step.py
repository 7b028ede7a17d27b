"""What to do next, where a panel has nothing else to say."""

from __future__ import annotations

from collections.abc import Callable

from napari.components import ViewerModel

from napari_mambamic._napari.message import Message


class NextStep:
    """Fills a message with a sentence about what to do next, until something else is said there.

    Parameters
    ----------
    viewer : napari.Viewer
        The sentence is asked for again when its layers come and go.
    message : Message
    sentence : callable
        Tells what to do as things are.
    """

    def __init__(self, viewer: ViewerModel, message: Message, sentence: Callable[[], str]) -> None:
        self._message, self._sentence = message, sentence
        self._said = ""
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.show)
        self.show()

    def instead(self, sentence: str) -> None:
        """Say this until something else is to be done next."""
        self._said = sentence
        self._message.setText(sentence)

    def show(self, event: object = None) -> None:
        """Say what to do now, unless there is another message."""
        if self._message.text() in ("", self._said):
            self._said = self._sentence()
            self._message.setText(self._said)
