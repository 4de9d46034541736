"""What is in a picture, in words of a language: Ray Serve's classifier and translator."""

from typing import Literal

import models
import numpy as np
from PIL import Image

from graphserve import api, depends, service


@service
class Classifier:
    @api
    def classify(self, image: Image.Image) -> str:
        return models.color(np.asarray(image.convert("RGB")))


@service
class Translator:
    @api
    async def translate(self, text: str) -> str:
        return models.GERMAN[text]


@service
class Gateway:
    classifier = depends(Classifier)
    translator = depends(Translator)

    @api
    async def classify(
        self, image: Image.Image, language: Literal["english", "german"] = "english"
    ) -> str:
        """Name the color of a picture."""
        label = await self.classifier.classify(image)
        return label if language == "english" else await self.translator.translate(label)
