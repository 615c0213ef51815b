"""How grey levels become the pixels that a model sees."""

BINARIZE = ("none", "static", "dynamic")


def describe(binarize: str, likelihood: str) -> str:
    """A run's pixels in words. Losses are comparable only between runs with the same pixels."""
    pixels = {
        "none": "grey levels in [0, 1]",
        "static": "binarised once: each pixel drawn with its grey level as probability",
        "dynamic": "binarised anew for every batch: each pixel drawn with its grey level as probability",
    }[binarize]
    if likelihood != "bernoulli":
        return f"{pixels}, as real values (nats of a density)"
    return f"{pixels} as soft targets" if binarize == "none" else pixels
