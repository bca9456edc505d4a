"""Writes the reference data of the weight converters' tests, with the real models of timm and Hugging Face.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python make_references.py [FOLDER]

FOLDER is where the files go; without it, the folder of this script. Nothing is downloaded: all weights are random.
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import timm
import torch
import transformers

DEPTHS = (1, 1, 2, 1)
DIMS = (4, 8, 12, 16)
CLASSES = 5
IMAGES_SHAPE = (2, 3, 64, 96)

# name: (depths, channels of the first stage); each further stage has twice as many
V2_SIZES = {
    "convnextv2_atto": ((2, 2, 6, 2), 40),
    "convnextv2_femto": ((2, 2, 6, 2), 48),
    "convnextv2_pico": ((2, 2, 6, 2), 64),
    "convnextv2_nano": ((2, 2, 8, 2), 80),
    "convnextv2_tiny": ((3, 3, 9, 3), 96),
    "convnextv2_base": ((3, 3, 27, 3), 128),
    "convnextv2_large": ((3, 3, 27, 3), 192),
    "convnextv2_huge": ((3, 3, 27, 3), 352),
}
V1_SIZES = {
    "convnext_tiny": ((3, 3, 9, 3), 96),
    "convnext_small": ((3, 3, 27, 3), 96),
    "convnext_base": ((3, 3, 27, 3), 128),
    "convnext_large": ((3, 3, 27, 3), 192),
    "convnext_xlarge": ((3, 3, 27, 3), 256),
}


def huggingface_model(version, depths, dims, classes):
    """A Hugging Face classifier of ConvNeXt `version` 1 or 2."""
    if version == 1:
        config, model = transformers.ConvNextConfig, transformers.ConvNextForImageClassification
    else:
        config, model = transformers.ConvNextV2Config, transformers.ConvNextV2ForImageClassification
    return model(config(depths=list(depths), hidden_sizes=list(dims), num_labels=classes))


def timm_model(version, conv_mlp=False):
    """A small timm classifier of ConvNeXt `version` 1 or 2; `conv_mlp` makes its dense layers 1x1 convolutions."""
    return timm.models.convnext.ConvNeXt(
        depths=DEPTHS,
        dims=DIMS,
        num_classes=CLASSES,
        use_grn=version == 2,
        ls_init_value=1e-6 if version == 1 else None,
        conv_mlp=conv_mlp,
    )


def shapes(model):
    """Returns `{key: shape}` of the model's state dictionary."""
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def keys_of_published_sizes():
    """Returns `{library: {model name: {key: shape}}}`, all with 1000 classes; no memory is taken for the weights."""
    keys = {"timm": {}, "huggingface": {}}
    with torch.device("meta"):
        for version, sizes in ((1, V1_SIZES), (2, V2_SIZES)):
            for name, (depths, width) in sizes.items():
                dims = [width * 2**stage for stage in range(4)]
                keys["timm"][name] = shapes(timm.create_model(name, num_classes=1000))
                keys["huggingface"][name] = shapes(huggingface_model(version, depths, dims, classes=1000))
    return keys


@torch.no_grad()
def randomize(model, seed):
    """Draws every parameter, so that none keeps an initial 0 or 1; scales of normalisation layers are around 1."""
    generator = torch.Generator().manual_seed(seed)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    for name, parameter in model.named_parameters():
        mean, std = (1.0, 0.2) if name in norms else (0.0, 0.4)
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images():
    """Normal values `(B, 3, H, W)` in steps of 1/2, which keeps the file small."""
    generator = torch.Generator().manual_seed(0)
    return torch.round(2 * torch.randn(IMAGES_SHAPE, generator=generator)) / 2


@torch.no_grad()
def huggingface_outputs(model, inputs):
    """Returns logits `(B, classes)` and the four stages' features `(B, C, H, W)`."""
    outputs = model(inputs, output_hidden_states=True)
    _stem, *features = outputs.hidden_states
    return outputs.logits, features


@torch.no_grad()
def timm_outputs(model, inputs):
    """Returns logits `(B, classes)` and the four stages' features `(B, C, H, W)`."""
    features = []
    hooks = [stage.register_forward_hook(lambda *call: features.append(call[-1])) for stage in model.stages]
    logits = model(inputs)
    for hook in hooks:
        hook.remove()
    return logits, features


def write_keys(path):
    """Writes the published sizes' keys; the bytes are the same every time."""
    text = json.dumps(keys_of_published_sizes(), sort_keys=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def write_small_models(folder, version):
    """Writes the small models of a version, each in its library's own way, and returns what they compute.

    All hold the same weights, for the libraries list a model's parameters in the same order. So the features are
    returned once, as `v<version>/f0` to `f3`, and the logits for each file, as `<file's name>/logits`.
    """
    huggingface = randomize(huggingface_model(version, DEPTHS, DIMS, CLASSES), seed=version)
    huggingface.save_pretrained(folder / f"huggingface_v{version}")
    logits, features = huggingface_outputs(huggingface, images())
    outputs = {f"v{version}/f{stage}": value.numpy() for stage, value in enumerate(features)}
    outputs[f"huggingface_v{version}/logits"] = logits.numpy()

    timm_models = {f"timm_v{version}": timm_model(version)}
    if version == 2:
        timm_models["timm_v2_conv_mlp"] = timm_model(version, conv_mlp=True)
    for name, model in timm_models.items():
        randomize(model, seed=version)
        safetensors.torch.save_file(model.state_dict(), folder / f"{name}.safetensors")
        timm_logits, timm_features = timm_outputs(model, images())
        torch.testing.assert_close([timm_logits, *timm_features], [logits, *features], rtol=1e-5, atol=1e-4)
        outputs[f"{name}/logits"] = timm_logits.numpy()
    return outputs


def main():
    """Writes all files."""
    torch.set_num_threads(1)  # the last bits of sums depend on it
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    write_keys(folder / "keys.json.gz")
    outputs = {"images": images().numpy(), **write_small_models(folder, 1), **write_small_models(folder, 2)}
    np.savez_compressed(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main()
