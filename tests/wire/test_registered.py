"""What `register_type` takes, and how values of such a class are written and read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from graphserve.errors import DeclarationError
from graphserve.wire.codec import ResultCodec, UntypedCodec
from graphserve.wire.exceptions import Misfit
from graphserve.wire.extensions import no_memory
from graphserve.wire.formats import Format, MediaFormat
from graphserve.wire.media import kinds
from graphserve.wire.media.registered import register_type
from tests.apps.files import Rate, Sound


class Unknown:
    pass


@dataclass
class Known:
    x: int


@pytest.mark.parametrize(
    ("cls", "media_type", "why"),
    [
        (Known, "a/b", "is sent already"),
        (bytes, "a/b", "is sent already"),
        (Sound, "a/b", "registered already"),
        (Unknown, "ab", "write one as"),
        (Unknown, "a/*", "write one as"),
        (Unknown, 5, "write one as"),
        ("Unknown", "a/b", "is no class"),
    ],
)
def test_mistakes_are_told_where_they_are(cls: Any, media_type: Any, why: str) -> None:
    with pytest.raises(DeclarationError, match=why) as caught:
        register_type(cls, media_type=media_type, encode=bytes, decode=bytes)
    assert caught.value.file == __file__


@pytest.fixture
def broken() -> Iterator[type]:
    class Broken:
        pass

    register_type(
        Broken, media_type="a/b", encode=lambda _: "no bytes", decode=lambda _: 5  # type: ignore[arg-type, return-value]
    )  # fmt: skip
    yield Broken
    del kinds.REGISTERED[Broken]


def test_what_user_code_makes_wrong(broken: type) -> None:
    with pytest.raises(TypeError, match="returned str, not bytes"):
        ResultCodec(broken, "S.f").encode(broken(), MediaFormat(b"a/b"))
    with pytest.raises(Misfit, match="no Broken that can be read"):
        kinds.REGISTERED[broken].read(b"")


def test_between_services() -> None:
    codec = ResultCodec(Sound, "S.f")
    body = codec.encode(Sound(b"abc"), Format.TYPED)
    found: Any = codec.decode(body, no_memory)
    assert found.samples == b"abc"
    other: Any = UntypedCodec().decode(body, no_memory)
    assert isinstance(other, Sound)  # it is known here by its name
    with pytest.raises(ValueError, match="does not fit"):
        ResultCodec(Rate, "S.f").decode(body, no_memory)
    with pytest.raises(ValueError, match="is of a kind that is not known here"):
        UntypedCodec().decode(body.replace(b"Sound", b"Other"), no_memory)
    with pytest.raises(ValueError, match="Expected"):
        codec.encode(Rate(1), Format.JSON)
