"""Calls that are refused before they cost anything: those that would make others late, or be late. Runs in workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphserve.call.context import CallContext
from graphserve.errors import Unavailable
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.http.throttle import Throttle

if TYPE_CHECKING:
    from graphserve.worker.dispatch.slots import Gate
    from graphserve.worker.http.protocol import Protocol

TRIED = 4  # calls in flight that are never refused for what others took


def refusal(protocol: Protocol, api: BoundApi, context: CallContext, throttle: Throttle | None) -> Unavailable | None:
    """Why a call is not executed, if it is not.

    Args:
        protocol: the connection that it came by.
        api: the API.
        context: what travels with it.
        throttle: of the API, at the public listener.
    """
    if throttle is not None and throttle.active and (refused := throttle.refusal()) is not None:
        return refused
    if api.plan.lane == "pooled":
        executor = protocol.listener.executor
        pressure = executor.pressure
        if not pressure.late and len(executor.executing) < pressure.limit:
            return None
        return _behind(api, executor, context)
    if protocol.admission.held and api.pace is not None:
        return _hopeless(api, protocol.listener.executor, protocol.listener.gate, context)
    return None


def _behind(api: BoundApi, executor: Executor, context: CallContext) -> Unavailable | None:
    """The event loop is late: there are more calls of async APIs in flight than it can serve, or serve in time.

    A few calls are always tried: from what they take, it is known whether the others can be in time again.
    """
    in_flight, pressure, name = len(executor.executing), executor.pressure, executor.node.name
    if in_flight >= pressure.limit:
        return Unavailable(f"{name} is behind, with {in_flight} calls in flight", node=name, full=True)
    if pressure.late and in_flight >= TRIED and api.pace is not None:
        left = context.seconds_left()
        if left is not None and left < api.pace.usual:
            return _too_late(name, left)
    return None


def _hopeless(api: BoundApi, executor: Executor, gate: Gate, context: CallContext) -> Unavailable | None:
    """It got a slot too late and would hold it in vain, while others wait that can be in time.

    If none waits, there is nothing to lose, and it is tried.
    """
    left = context.seconds_left()
    if left is None or api.pace is None:
        return None
    # (Where others wait, a batch is full at once: its `max_wait` does not count.)
    if left >= api.pace.needed or not gate.crowded():
        return None
    return _too_late(executor.node.name, left)


def _too_late(name: str, left: float) -> Unavailable:
    said = f"{name} has more to do than it can: {max(left, 0.0):.3f} s were left when it was this call's turn"
    return Unavailable(said, node=name, full=True)
