"""What a pipeline's text encoders make of texts, kept."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..threads import one_thread
from .families import Family, Told
from .memory import Readers

Text = tuple[str, bool]  # and whether it is read as one that is wanted, where that differs


class Embeddings:
    """What the network of a pipeline is told for each text, which is encoded once, for good.

    device: where the encoders read, `readers`. kept: by text; and the texts that are blends.
    """

    def __init__(self, pipe, family: Family, device: torch.device, readers: Readers):
        self.pipe, self.family, self.device, self.readers = pipe, family, device, readers
        self.kept: dict[Text, Told] = {}
        self.blends: list[Text] = []

    def texts(self, texts: Iterable[str], wanted: bool) -> tuple[Text, ...]:
        """Texts as they are read: some families have an instruction before those wanted."""
        return tuple((text, wanted and self.family.instructed) for text in texts)

    @torch.no_grad()
    def of(self, texts: Sequence[Text]) -> list[Told]:
        """What the network is told for each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        for wanted in (False, True):
            if missing := [text for text, how in new if how == wanted]:
                with self.readers.at(self.device), one_thread(*self.readers.modules):
                    encoded = self.family.encode(self.pipe, missing, wanted, self.device)
                for i, text in enumerate(missing):
                    self.kept[text, wanted] = {name: each[i] for name, each in encoded.items()}
        return [self.kept[text] for text in texts]

    def blend(self, texts: dict[str, float]) -> str:
        """A name, as a text that is wanted, for the mean of texts by their weights."""
        name = " + ".join(f"{weight:.6f} [{text}]" for text, weight in texts.items())
        (key,) = self.texts([name], True)
        if key not in self.kept:
            parts = self.of(self.texts(texts, True))
            weights = torch.tensor(list(texts.values()))
            self.kept[key] = {
                part: mean(torch.stack([told[part] for told in parts]), weights)
                for part in parts[0]
            }
            self.blends.append(key)
        return name

    def forget_blends(self) -> None:
        """Let go of the blends made so far, whose names then mean nothing any more."""
        while self.blends:
            del self.kept[self.blends.pop()]


def mean(parts: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of embeddings (n, ...); of masks, which are integers, their union."""
    if not parts.is_floating_point():
        return parts.amax(0)
    return torch.einsum("n,n...->...", weights.to(parts), parts)
