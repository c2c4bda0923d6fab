"""torch.autocast on and off for "cuda" and "meta", whatever the build of torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from memcalc.tracing.autocast import register, state
from memcalc.tracing.place import Place
from memcalc.tracing.private_api import AUTOCAST_KEY, KeySwitch

_DEVICES = ("cuda", "meta")


@contextmanager
def installed(place: Place) -> Iterator[None]:
    """Inside a `with` block torch.autocast works for "cuda" and "meta", whatever the build of torch."""
    register()
    autocast = torch.amp.autocast_mode.autocast
    replaced = [
        (autocast, "__init__", _init(autocast.__init__)),
        (autocast, "__enter__", _enter(autocast.__enter__)),
        (autocast, "__exit__", _exit(autocast.__exit__)),
        (torch, "is_autocast_enabled", _for_our_devices(torch.is_autocast_enabled, lambda: state.enabled)),
        (torch, "get_autocast_dtype", _for_our_devices(torch.get_autocast_dtype, lambda: state.dtype)),
    ]
    available = _for_our_devices(torch.amp.autocast_mode.is_autocast_available, lambda: True)
    replaced += [(module, "is_autocast_available", available) for module in (torch.amp, torch.amp.autocast_mode)]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, new in replaced:
        setattr(owner, name, new)
    state.place = place
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
        state.place = None
        state.cache.clear()


def _for_our_devices(original: Callable[..., Any], ours: Callable[[], Any]) -> Callable[..., Any]:
    """A question about a device ("cuda" where none is named), answered from our state for our devices."""

    def answer(device_type: str = "cuda") -> Any:
        return ours() if device_type in _DEVICES else original(device_type)

    return answer


def _init(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(
        self: Any,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if device_type not in _DEVICES:
            original(self, device_type, dtype, enabled, cache_enabled)
            return
        self.device, self.fast_dtype, self._enabled = device_type, dtype or state.dtype, enabled

    return init


def _enter(original: Callable[..., Any]) -> Callable[..., Any]:
    def enter(self: Any) -> Any:
        if self.device not in _DEVICES:
            return original(self)
        self.before = (state.enabled, state.dtype)
        self.key = KeySwitch(AUTOCAST_KEY, self._enabled)
        self.key.__enter__()
        state.enabled, state.dtype = self._enabled, self.fast_dtype
        state.depth += 1
        return self

    return enter


def _exit(original: Callable[..., Any]) -> Callable[..., Any]:
    def leave(self: Any, *error: object) -> Any:
        if self.device not in _DEVICES:
            return original(self, *error)
        state.depth -= 1
        if state.depth == 0:
            state.cache.clear()
        self.key.__exit__(*error)
        state.enabled, state.dtype = self.before
        return False

    return leave
