"""The interface of a service: its APIs as the Plan describes them. Runs in the resolver."""

from __future__ import annotations

import inspect

from graphserve.declare.service import apis
from graphserve.errors import ConfigurationError
from graphserve.graph.plan import ApiPlan
from graphserve.wire.signature import Signature
from graphserve.wire.signature_fingerprint import fingerprint


def interface(cls: type, *, limited: bool) -> tuple[tuple[ApiPlan, ...], list[str]]:
    """Read the APIs of a service.

    Args:
        cls: its class.
        limited: whether its `concurrency` bounds all of them; sync and batched ones are bounded anyway.

    Returns:
        What the Plan says of each, and what is wrong with those that it cannot describe.
    """
    plans, troubles = [], []
    for method, spec in apis(cls).items():
        try:
            signature = Signature.of(cls, method)
        except ConfigurationError as exc:
            troubles.append(str(exc))
            continue
        parameters = list(inspect.signature(getattr(cls, method)).parameters.values())[1:]
        by_name = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        queued = limited or spec.batch is not None or not signature.is_async
        plans.append(
            ApiPlan(
                name=method, route=spec.route,
                parameters=tuple(parameter.name for parameter in parameters),
                positional=len(parameters) - len(by_name) if by_name else None,
                lane="queue" if queued else "pooled", stream=signature.stream, input_stream=signature.input_stream,
                raw_body=signature.raw_body,
                timeout=spec.timeout, idempotent=spec.idempotent, batch=spec.batch, fingerprint=fingerprint(signature),
            )
        )  # fmt: skip
    return tuple(plans), troubles
