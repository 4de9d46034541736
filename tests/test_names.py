"""The names that users import from the package: wrong ones say which was meant."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graphserve


def test_a_wrong_name_in_an_import_has_a_did_you_mean() -> None:
    with pytest.raises(
        ImportError,
        match=r"cannot import name 'servcie' from 'graphserve'; did you mean 'service'\?",
    ):
        from graphserve import servcie  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(ImportError, match=r"cannot import name 'zzzzz' from 'graphserve'$"):
        from graphserve import zzzzz  # type: ignore[attr-defined]  # noqa: F401


def test_a_wrong_attribute_has_a_did_you_mean() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'depnds'; did you mean 'depends'\?"):
        graphserve.depnds  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(graphserve, "servcie")
    assert getattr(graphserve, "servcie", 3) == 3


def test_python_adds_no_guess_of_its_own() -> None:
    code = "import graphserve\ngraphserve.servcie"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == "AttributeError: module 'graphserve' has no attribute 'servcie'; did you mean 'service'?"
    )


def test_every_name_is_there() -> None:
    for name in graphserve.__all__:
        assert getattr(graphserve, name) is not None
    assert dir(graphserve) == sorted(graphserve.__all__)


def test_what_functions_return_has_a_name() -> None:
    from graphserve import Call, Server, Stream
    from graphserve.call.remote import RemoteCall
    from graphserve.run.server import Server as Real

    assert Server is Real
    assert issubclass(RemoteCall, Call)
    assert Stream.__module__ == "graphserve.declare.typed"
