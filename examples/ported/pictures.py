"""What is in a picture, in words of a language: Ray Serve's classifier and translator."""

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
    async def classify(self, image: Image.Image, should_translate: bool = False) -> str:
        """Name the color of a picture."""
        label = await self.classifier.classify(image)
        return await self.translator.translate(label) if should_translate else label
