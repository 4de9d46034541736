"""A fourth model: what kind of document is a text?"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from graphserve import Batch, api, service

# A model of yours learns from thousands; these few show the same.
KNOWN = {
    "invoice": [
        "Invoice No. 12. Bill to: Mills Ltd. Due date. Quantity, unit price, amount, VAT, total.",
        "Invoice. Terms: payment within 30 days by bank transfer. Hours, rate, subtotal, tax.",
    ],
    "receipt": [
        "Corner shop. 2 milk 3.10, bread 2.00. Total 5.10. Card. Thank you, come again!",
        "Cafe. Cash. Change 1.20. Total 8.80. Tea, cake. Thank you for your visit.",
    ],
    "label": [
        "Fragile. This side up. Keep dry. Handle with care.",
        "Do not stack. Keep away from heat. Glass. Handle with care.",
    ],
    "letter": [
        "Dear Ms Lee, thank you for your letter. I look forward to seeing you. Yours sincerely, Jo",
        "Dear neighbours, we move in on Friday and hope that you will visit us. Kind regards, Wu",
    ],
}


@dataclass(frozen=True)
class Kind:
    """What a text is.

    Args:
        name: one of `KNOWN`.
        score: how sure the model is, 0 to 1.
    """

    name: str
    score: float


@service(concurrency=1)
class Kinds:
    """Tells invoices from receipts, labels and letters (naive Bayes over words)."""

    def __init__(self) -> None:
        said = {name: words(" ".join(texts)) for name, texts in KNOWN.items()}
        vocabulary = sorted({word for each in said.values() for word in each})
        self.places = {word: place for place, word in enumerate(vocabulary)}
        counts = np.ones((len(said), len(vocabulary)))
        for row, each in enumerate(said.values()):
            for word in each:
                counts[row, self.places[word]] += 1
        self.likelihood = np.log(counts / counts.sum(axis=1, keepdims=True))

    @api(batch=Batch(max_size=64), idempotent=True)
    def tell(self, texts: list[str]) -> list[Kind]:
        """Tell what kind of document each text is."""
        return [self.kind(text) for text in texts]

    def kind(self, text: str) -> Kind:
        """The kind of one text."""
        known = [self.places[word] for word in words(text) if word in self.places]
        likelihood = self.likelihood[:, known].sum(axis=1)
        probability = np.exp(likelihood - likelihood.max())
        probability /= probability.sum()
        best = int(probability.argmax())
        return Kind(list(KNOWN)[best], round(float(probability[best]), 3))


def words(text: str) -> list[str]:
    """The words of a text, without numbers."""
    return re.findall(r"[a-z]+", text.lower())
