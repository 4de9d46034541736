"""Names what to write in place of what can never be sent: classes and defaults of web frameworks,
types of well-known libraries, libraries that are not installed.

Runs where classes are read, once one is refused or may have to be; imports none of them.
"""

from __future__ import annotations

import importlib.util

from graphserve.wire import type_hints
from graphserve.wire.type_hints import Hint

_FRAMEWORKS = frozenset(
    {
        "aiohttp",
        "blacksheep",
        "bottle",
        "django",
        "falcon",
        "fastapi",
        "flask",
        "litestar",
        "ninja",
        "python_multipart",
        "quart",
        "rest_framework",
        "robyn",
        "sanic",
        "starlette",
        "tornado",
        "webob",
        "werkzeug",
    }
)
_OF_A_FILE = (
    "write 'file: bytes' for a body that is the file, or 'parts: AsyncIterator[bytes]' to read it"
    " as it comes"
)
_OF_A_REQUEST = (
    "an API takes its parameters, by name and type; graphserve.request() has the headers, the"
    " cookies, the client and the rest of the request"
)
_OF_AN_ANSWER = (
    "an API returns its result; graphserve.request().answer sets its status, headers and cookies,"
    " and to answer with an error it raises graphserve.Problem"
)
_OF_A_TASK = "start it with asyncio.create_task(…): a task may outlive its request"
_INSTEAD_OF_OTHERS = "take and return the values themselves"
_OF_CLASSES = {
    **dict.fromkeys(
        (
            "UploadFile",
            "UploadedFile",
            "FileStorage",
            "FileField",
            "FieldStorage",
            "FormData",
            "File",
            "BodyPartReader",
            "MultipartReader",
        ),
        _OF_A_FILE,
    ),
    **dict.fromkeys(
        (
            "Request",
            "HTTPConnection",
            "HttpRequest",
            "HTTPServerRequest",
            "BaseRequest",
            "Headers",
            "QueryParams",
            "State",
            "Address",
            "URL",
            "LocalProxy",
        ),
        _OF_A_REQUEST,
    ),
    **dict.fromkeys(
        (
            "Response",
            "BaseResponse",
            "JSONResponse",
            "ORJSONResponse",
            "UJSONResponse",
            "HTMLResponse",
            "PlainTextResponse",
            "StreamingResponse",
            "FileResponse",
            "RedirectResponse",
            "HttpResponse",
            "JsonResponse",
            "StreamResponse",
            "HTTPResponse",
            "EventSourceResponse",
            "StreamingHttpResponse",
        ),
        _OF_AN_ANSWER,
    ),
    **dict.fromkeys(("BackgroundTask", "BackgroundTasks"), _OF_A_TASK),
    **dict.fromkeys(
        ("HTTPException", "HTTPError"), "raise graphserve.Problem(status, title) in the API"
    ),
    "WebSocket": (
        "decorate the method with @websocket in place of @api; an API that streams returns"
        " AsyncIterator[…], and reads AsyncIterator[bytes]"
    ),
}
# of what FastAPI and others take as a default, or in `Annotated`
_OF_VALUES = {
    "Query": (
        "write the default itself, 'limit: int = 10': with @api(method='GET') what is not in the"
        " path is in the query"
    ),
    "Path": "write the parameter into the route, @api(route='/items/{number}')",
    "Form": "write 'title: str': where an API takes a file, a form has a part for each parameter",
    "File": _OF_A_FILE,
    "Body": "write Annotated[T, graphserve.Body]: then the parameter is the whole body",
    "Header": "graphserve.request().headers has the headers",
    "Cookie": "graphserve.request().cookies has the cookies",
    **dict.fromkeys(
        ("Depends", "Security"),
        "call the function in the API; another service is 'dep = graphserve.depends(Service)' in"
        " the body of the class",
    ),
}
_NUMPY = "annotate np.ndarray, and send {}"
# by the package that they are of and their name
_OF_LIBRARIES = {
    "PIL.Image": "annotate PIL.Image.Image, which takes all of them",
    "io.IOBase": "annotate bytes, or AsyncIterator[bytes] for a file that comes in chunks",
    "jax.Array": _NUMPY.format("numpy.asarray(array)"),
    "jaxlib.ArrayImpl": _NUMPY.format("numpy.asarray(array)"),
    "pandas.DataFrame": "annotate pandas.DataFrame, which takes all of them",
    "pandas.Series": _NUMPY.format("series.to_numpy()"),
    "pathlib.PurePath": "annotate pathlib.Path for a file, or str for its name",
    "polars.DataFrame": "annotate polars.DataFrame, which takes all of them",
    "polars.LazyFrame": "annotate polars.DataFrame, and send frame.collect()",
    "polars.Series": _NUMPY.format("series.to_numpy()"),
    "pyarrow.Table": "annotate pyarrow.Table, which takes all of them",
    "pyarrow.RecordBatch": "annotate pyarrow.Table, and send pyarrow.Table.from_batches([batch])",
    "re.Pattern": "annotate str, and compile it",
    "scipy.spmatrix": _NUMPY.format("its arrays data, indices and indptr"),
    "tensorflow.Tensor": _NUMPY.format("tensor.numpy()"),
    "torch.Tensor": "annotate torch.Tensor, which takes all of them",
}
# the module and the distribution that a name in an annotation is most often of
_MODULES = {
    **{name: (name, name) for name in ("jax", "numpy", "pandas", "polars", "pyarrow", "pydantic")},
    "np": ("numpy", "numpy"),
    "pa": ("pyarrow", "pyarrow"),
    "pd": ("pandas", "pandas"),
    "pl": ("polars", "polars"),
    "tf": ("tensorflow", "tensorflow"),
    "torch": ("torch", "torch"),
    "Image": ("PIL", "pillow"),
    "PIL": ("PIL", "pillow"),
    "NDArray": ("numpy", "numpy"),
    "BaseModel": ("pydantic", "pydantic"),
    "DataFrame": ("pandas", "pandas"),
    "Tensor": ("torch", "torch"),
}


def for_class(hint: Hint) -> str | None:
    """Return what to write in place of a class that the frameworks of ASGI and WSGI give to
    handlers, if it is one.
    """
    kind = type_hints.origin_of(hint) or hint
    if not isinstance(kind, type) or not _is_of_framework(kind):
        return None
    return _OF_CLASSES.get(kind.__name__, _INSTEAD_OF_OTHERS)


def for_value(value: object) -> str | None:
    """Return what to write in place of a default, or of something in `Annotated`, that such a
    framework reads, if it is one: `Query(…)`, `Depends(…)`.
    """
    kind = type(value)
    if not _is_of_framework(kind):
        return None
    return _OF_VALUES.get(kind.__name__, _INSTEAD_OF_OTHERS)


def for_library_type(hint: Hint) -> str | None:
    """Return what to write in place of a type of a well-known library, if it is one, or is derived
    from one.
    """
    for base in getattr(type_hints.origin_of(hint) or hint, "__mro__", ()):
        # `_io` has the classes of `io`
        package = base.__module__.partition(".")[0].removeprefix("_")
        if instead := _OF_LIBRARIES.get(f"{package}.{base.__name__.removeprefix('_')}"):
            return instead
    return None


def missing_library(name: str) -> str | None:
    """Return what to do where an annotation has a name that is most often of a well-known library,
    which is not installed.
    """
    module, distribution = _MODULES.get(name, ("", ""))
    if not module or importlib.util.find_spec(module) is not None:
        return None
    return f"{distribution} is not installed here (pip install {distribution})"


def _is_of_framework(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _FRAMEWORKS
