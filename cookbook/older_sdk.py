"""SDK 0.24 with the surface of 0.38, so that notebooks and recipes are written once.

Owns: the differences that a caller would see. 0.24 is what open cluster servers speak today; its
``create_...`` calls return the client itself where later versions return a future of it.
"""

from typing import Any


def adapt() -> None:
    """Let clients of an older SDK be asked for their ``result()``; a later SDK stays as it is."""
    import tinker

    if hasattr(tinker, "RestClient"):
        return
    clients: list[Any] = [tinker.TrainingClient, tinker.SamplingClient]
    for client in clients:
        client.result = _itself


def _itself(client: Any, timeout: float | None = None) -> Any:
    return client
