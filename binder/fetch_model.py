"""Fetch the bundled model and convert it, so that the first notebook starts at once."""

from cookbook.engine.weights import BUNDLED, resolve_model

print(resolve_model(BUNDLED))
