"""Where a model runs that is not told."""


def at_hand() -> str:
    """``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch  # which those who only detect faces do without

    return "cuda" if torch.cuda.is_available() else "cpu"
