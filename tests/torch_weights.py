"""Random weights for the PyTorch models that ours are compared with."""


def draw(model, seed=0):
    """Gives every weight of a PyTorch model a random value; those of normalizations are around one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = (
                "norm" in name and name.endswith("weight") or name.split(".")[-2] in ("0", "1") and parameter.ndim == 1
            )
            spread = 0.05 if parameter.ndim > 1 and "grn" not in name else 0.2
            parameter.copy_((1.0 if is_scale else 0.0) + spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()
