"""Fine-grained image classification that finds, and shows, the variation inside each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdemo.predict import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # PEP 562: `import fgdemo` alone costs no import of torch.
    if name == "load":
        from fgdemo.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
