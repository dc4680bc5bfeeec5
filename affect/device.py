"""Default device of models."""


def default_device() -> str:
    """Name of the device for models without a device setting: ``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch  # imported late: face detection alone works without torch

    return "cuda" if torch.cuda.is_available() else "cpu"
