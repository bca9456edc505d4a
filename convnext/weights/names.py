"""What the authors, timm and Transformers call the weights of a ConvNeXt, and how they lay out the arrays.

Ours are the names of `convnext.weights.loader.named_variables`: `stage_0/block_1/norm/gamma`. In the tables `{s}` is
the number of a stage and `{b}` that of a block. All names and layouts read in both directions.

- https://github.com/facebookresearch/ConvNeXt and .../ConvNeXt-V2: classifiers in PyTorch's layouts, and pretrained
  autoencoders whose encoder is in the layouts of sparse convolutions.
- https://github.com/huggingface/pytorch-image-models: `convnext_*` and `convnextv2_*`.
- https://github.com/huggingface/transformers: `ConvNext*`, `ConvNextV2*` and `DINOv3ConvNext*`.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from convnext.variants import CONVNEXT_V2
from convnext.weights.architecture import Architecture, PretrainedError

# `(our name, their name, layouts there)` of each weight, with placeholders.
Rules = list[tuple[str, str, list[str]]]

# Our weights after the last stage of the encoder.
HEAD_NORM = ("head_norm/gamma", "head_norm/beta")
CLASSIFIER = ("head/kernel", "head/bias")
HEAD = (*HEAD_NORM, *CLASSIFIER)

LIBRARIES = ("fair", "timm", "huggingface")

# Our layers. The weights of a layer by the last part of its name, in the order in which Keras stores them.
BLOCK = ("depthwise_conv", "norm", "expansion", "grn", "projection", "layer_scale")
WEIGHTS = {
    "norm": ("gamma", "beta"),
    "head_norm": ("gamma", "beta"),
    "grn": ("gamma", "beta"),
    "layer_scale": ("gamma",),
    "decoder": ("mask_token",),
}


def weights_of(layer: str) -> tuple[str, ...]:
    """Returns the names of the weights of one of our layers."""
    return WEIGHTS.get(layer.rpartition("/")[2], ("kernel", "bias"))


def _block(theirs: str, layers: str, ours: str = "stage_{s}/block_{b}") -> dict[str, str]:
    return {f"{ours}/{layer}": f"{theirs}.{other}" for layer, other in zip(BLOCK, layers.split())}


AUTHORS = {
    "stem/conv": "downsample_layers.0.0",
    "stem/norm": "downsample_layers.0.1",
    "stage_{s}/downsampling/norm": "downsample_layers.{s}.0",
    "stage_{s}/downsampling/conv": "downsample_layers.{s}.1",
    **_block("stages.{s}.{b}", "dwconv norm pwconv1 grn pwconv2 gamma"),
    "head_norm": "norm",
    "head": "head",
}
SPARSE_ENCODER = {
    "stem/conv": "downsample_layers.0.0",
    "stem/norm": "downsample_layers.0.1",
    "stage_{s}/downsampling/norm": "downsample_layers.{s}.0.ln",
    "stage_{s}/downsampling/conv": "downsample_layers.{s}.1",
    **_block("stages.{s}.{b}", "dwconv norm.ln pwconv1.linear grn pwconv2.linear"),
}
DECODER = {
    "decoder": "mask_token",
    "decoder/embedding": "proj",
    **_block("decoder.{b}", "dwconv norm pwconv1 grn pwconv2 gamma", "decoder/block_{b}"),
    "decoder/prediction": "pred",
}
TIMM = {
    "stem/conv": "stem.0",
    "stem/norm": "stem.1",
    "stage_{s}/downsampling/norm": "stages.{s}.downsample.0",
    "stage_{s}/downsampling/conv": "stages.{s}.downsample.1",
    **_block("stages.{s}.blocks.{b}", "conv_dw norm mlp.fc1 mlp.grn mlp.fc2 gamma"),
    "head_norm": "head.norm",
    "head": "head.fc",
}
# What `features_only=True` makes of it.
TIMM_FEATURES = {
    layer: re.sub(r"^(stem|stages)\.", r"\1_", theirs) for layer, theirs in TIMM.items() if not layer.startswith("head")
}
TRANSFORMERS = {
    "stem/conv": "embeddings.patch_embeddings",
    "stem/norm": "embeddings.layernorm",
    "stage_{s}/downsampling/norm": "encoder.stages.{s}.downsampling_layer.0",
    "stage_{s}/downsampling/conv": "encoder.stages.{s}.downsampling_layer.1",
    **_block("encoder.stages.{s}.layers.{b}", "dwconv layernorm pwconv1 grn pwconv2 layer_scale_parameter"),
    "head_norm": "layernorm",
}
DINOV3 = {
    "stem/conv": "stages.0.downsample_layers.0",
    "stem/norm": "stages.0.downsample_layers.1",
    "stage_{s}/downsampling/norm": "stages.{s}.downsample_layers.0",
    "stage_{s}/downsampling/conv": "stages.{s}.downsample_layers.1",
    **_block("stages.{s}.layers.{b}", "depthwise_conv layer_norm pointwise_conv1 - pointwise_conv2 gamma"),
    "head_norm": "layer_norm",
}

# Layouts there, a letter an axis, and here: out, in, rows (height), columns (width), channels; k is the one axis of
# the offsets of a sparse kernel, of which the row runs fastest.
LAYOUTS = {"oihw": "hwio", "kio": "hwio", "c1hw": "hwc1", "kc": "hwc1", "oi": "io", "oi11": "io"}
LAYOUTS |= dict.fromkeys(("c", "1c", "111c", "11111c", "1c11"), "c")
AXES = {"o": "out", "i": "in", "h": "rows", "w": "columns", "c": "channels", "k": "side * side", "1": "1"}

# How names of ours end, what theirs end in instead, and the layout there, or more that are read. The first fit counts.
PYTORCH = {
    "/layer_scale/gamma": ("", "c"),
    "/mask_token": ("", "1c11"),
    "/depthwise_conv/kernel": (".weight", "c1hw"),
    "/conv/kernel": (".weight", "oihw"),
    "/embedding/kernel": (".weight", "oi11"),
    "/prediction/kernel": (".weight", "oi11"),
    "/kernel": (".weight", "oi"),
    "/bias": (".bias", "c"),
    "/gamma": (".weight", "c"),
    "/beta": (".bias", "c"),
}
OF_AUTHORS = {"/grn/gamma": (".gamma", "111c"), "/grn/beta": (".beta", "111c")}
# The authors' script that makes a sparse autoencoder dense adds two axes to the decoder's too.
OF_DECODER = {"/grn/gamma": (".gamma", "111c", "11111c"), "/grn/beta": (".beta", "111c", "11111c")}
OF_SPARSE = {
    "/grn/gamma": (".gamma", "1c"),
    "/grn/beta": (".beta", "1c"),
    "/depthwise_conv/kernel": (".kernel", "kc"),
    "/depthwise_conv/bias": (".bias", "1c"),
    "/downsampling/conv/kernel": (".kernel", "kio"),
    "/downsampling/conv/bias": (".bias", "1c"),
}
OF_TRANSFORMERS = {"/grn/gamma": (".weight", "111c"), "/grn/beta": (".bias", "111c")}
# timm builds its smallest sizes with 1x1 convolutions where the others have dense layers.
DENSE_OR_POINTWISE = dict.fromkeys(("/expansion/kernel", "/projection/kernel"), (".weight", "oi", "oi11"))
POINTWISE = dict.fromkeys(DENSE_OR_POINTWISE, (".weight", "oi11"))
POINTWISE_DIMS = [CONVNEXT_V2[name].dims for name in ("atto", "femto", "pico", "nano")]  # of V1 too


def _rules(layers: Mapping[str, str], endings: Mapping[str, tuple[str, ...]]) -> Rules:
    """Returns `(our name, their name, layouts there)` of every weight of `{our layer: their layer}`."""
    rules: Rules = []
    for layer, theirs in layers.items():
        for ours in (f"{layer}/{weight}" for weight in weights_of(layer)):
            ending, *layouts = next(
                value for end, value in [*endings.items(), *PYTORCH.items()] if f"/{ours}".endswith(end)
            )
            rules.append((ours, theirs + ending, layouts))
    return rules


def _prefixed(prefix: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {layer: prefix + theirs for layer, theirs in layers.items()}


def _transformers(prefix: str = "") -> Rules:
    """Classifiers have a prefix before the names of their backbone; bare models have none."""
    return _rules({**_prefixed(prefix, TRANSFORMERS), "head": "classifier"}, OF_TRANSFORMERS)


DENSE = _rules(AUTHORS, OF_AUTHORS)
SPARSE = _rules(_prefixed("encoder.", SPARSE_ENCODER), OF_SPARSE) + _rules(DECODER, OF_AUTHORS)
TIMM_DENSE, TIMM_POINTWISE = _rules(TIMM, DENSE_OR_POINTWISE), _rules(TIMM, POINTWISE)


class Form:
    """How a library names the weights of a ConvNeXt, whatever stands before all of the encoder's names.

    Args:
        library: as a person would call it.
        rules: `(our name, their name, layouts there)`. Rules of head and decoder hold at every level above the
            encoder too, as Transformers has `classifier` beside `convnextv2.encoder`.
    """

    def __init__(self, library: str, rules: Rules) -> None:
        self.library = library
        self._encoder = [rule for rule in rules if rule[0].startswith(("stem/", "stage_"))]
        self._others = [rule for rule in rules if rule not in self._encoder]
        self.stem = next(theirs for ours, theirs, _ in self._encoder if ours == "stem/conv/kernel")
        self._roots = {theirs.partition(".")[0] for _, theirs, _ in self._encoder}
        self._head_roots = {theirs.partition(".")[0] for ours, theirs, _ in self._others if ours.startswith("head")}

    def translate(self, name: str, prefix: str) -> tuple[str, list[str]] | None:
        """Returns our name and the layouts there; None for a name that has none here."""
        if name.startswith(prefix) and (found := _translate(name.removeprefix(prefix), self._encoder, to_ours=True)):
            return found
        levels = prefix.split(".")[:-1]
        for i in range(len(levels), -1, -1):
            above = "".join(f"{level}." for level in levels[:i])
            if name.startswith(above) and (found := _translate(name.removeprefix(above), self._others, to_ours=True)):
                return found
        return None

    def is_of_encoder(self, name: str, prefix: str) -> bool:
        """Whether a name that has no translation is of a part that the encoder consists of."""
        root = name.removeprefix(prefix).partition(".")[0]
        return name.startswith(prefix) and any(_pattern(template).fullmatch(root) for template in self._roots)

    def is_of_head(self, name: str, prefix: str) -> bool:
        """Whether a name that has no translation is of a head."""
        return name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] in self._head_roots


FORMS = (
    Form("the authors' code", DENSE + _rules(DECODER, OF_DECODER)),
    Form("the authors' sparse code", _rules(SPARSE_ENCODER, OF_SPARSE) + _rules(DECODER, OF_AUTHORS)),
    Form("timm", TIMM_DENSE),
    Form("timm", _rules(TIMM_FEATURES, DENSE_OR_POINTWISE)),
    Form("Transformers", _transformers()),
    Form("Transformers", _rules(DINOV3, {})),
)


def to_ours(tensors: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, list[str]]]) -> dict[str, np.ndarray]:
    """Returns `{our name: array}`, float32 in Keras's layouts.

    Args:
        tensors: `{their name: array}`.
        names: `{their name: (our name, layouts there)}` of the tensors to take.

    Raises:
        PretrainedError: if an array has another shape than its name asks for.
    """
    weights = {}
    for key, (name, layouts) in names.items():
        layout = _layout_of(key, tensors[key], layouts)
        weights[name] = np.ascontiguousarray(_rearrange(tensors[key], layout, LAYOUTS[layout]), dtype="float32")
    return weights


def to_theirs(weights: Mapping[str, np.ndarray], library: str, architecture: Architecture) -> dict[str, np.ndarray]:
    """Returns `{their name: array}` of `{our name: array}`, as the model of a library takes them.

    Args:
        weights: ours, of that `architecture`.
        library: one of `LIBRARIES`.
        architecture: decides between layouts that a library has for different models.

    Raises:
        PretrainedError: if the library is unknown, or has no name for a weight.
    """
    if library == "fair":
        has_decoder = any(name.startswith("decoder/") for name in weights)
        library, rules = "the authors' code", SPARSE if has_decoder else DENSE
    elif library == "timm":
        rules = TIMM_POINTWISE if architecture.dims in POINTWISE_DIMS else TIMM_DENSE
    elif library == "huggingface":
        library, rules = "Transformers", _transformers("convnext." if architecture.version == 1 else "convnextv2.")
    else:
        raise PretrainedError(f"{library!r} is not one of {', '.join(LIBRARIES)}.")
    tensors = {}
    for ours, value in weights.items():
        found = _translate(ours, rules, to_ours=False)
        if found is None:
            raise PretrainedError(f"{library} has no name for {ours}")
        key, (layout, *_) = found
        tensors[key] = _rearrange(value, _layout_of(ours, value, [LAYOUTS[layout]]), layout)
    return tensors


def _translate(name: str, rules: Rules, to_ours: bool) -> tuple[str, list[str]] | None:
    """Returns the name on the other side and the layouts there, of the first rule that fits, or None."""
    for ours, theirs, layouts in rules:
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        if match := _pattern(source).fullmatch(name):
            return target.format(**match.groupdict()), layouts
    return None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """The regular expression of a name with placeholders."""
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(template)))


def _layout_of(name: str, array: np.ndarray, layouts: Sequence[str]) -> str:
    """Returns the one of some layouts that an array has."""
    for layout in layouts:
        if array.ndim == len(layout) and all(
            size == 1 if axis == "1" else axis != "k" or math.isqrt(size) ** 2 == size
            for axis, size in zip(layout, array.shape)
        ):
            return layout
    expected = " or ".join(f"({', '.join(AXES[axis] for axis in layout)})" for layout in layouts)
    raise PretrainedError(f"{name} has the shape {array.shape}, not {expected}")


def _rearrange(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Brings an array from one layout to another of the same axes."""
    sizes = dict(zip(source, array.shape))
    if "k" in source:
        sizes["w"] = sizes["h"] = math.isqrt(sizes["k"])
    axes, order = (layout.replace("k", "wh").replace("1", "") for layout in (source, target))
    array = array.reshape([sizes[axis] for axis in axes]).transpose([axes.index(axis) for axis in order])
    sizes |= {"1": 1, "k": sizes.get("h", 0) * sizes.get("w", 0)}
    return array.reshape([sizes[axis] for axis in target])
