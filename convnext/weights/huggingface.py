"""The names of Hugging Face Transformers: `ConvNext*` and `ConvNextV2*`.

A model with a classifier puts its backbone's weights below `convnext.` or `convnextv2.`; the bare model does not.
"""

from convnext.layers import EPSILON
from convnext.weights.errors import PretrainedError
from convnext.weights.layouts import CHANNELS_LAST_VECTOR, CONVOLUTION, DENSE, DEPTHWISE
from convnext.weights.names import Rule, Scheme


def make_scheme(prefix):
    """Returns the scheme with a prefix of the backbone's names."""
    ours, theirs = "stage_{stage}/block_{block}", prefix + "encoder.stages.{stage}.layers.{block}"
    downsampling = prefix + "encoder.stages.{stage}.downsampling_layer"
    return Scheme(
        "Transformers",
        (
            Rule("stem/conv/kernel", f"{prefix}embeddings.patch_embeddings.weight", CONVOLUTION),
            Rule("stem/conv/bias", f"{prefix}embeddings.patch_embeddings.bias"),
            Rule("stem/norm/gamma", f"{prefix}embeddings.layernorm.weight"),
            Rule("stem/norm/beta", f"{prefix}embeddings.layernorm.bias"),
            Rule("stage_{stage}/downsampling/norm/gamma", f"{downsampling}.0.weight"),
            Rule("stage_{stage}/downsampling/norm/beta", f"{downsampling}.0.bias"),
            Rule("stage_{stage}/downsampling/conv/kernel", f"{downsampling}.1.weight", CONVOLUTION),
            Rule("stage_{stage}/downsampling/conv/bias", f"{downsampling}.1.bias"),
            Rule(f"{ours}/depthwise_conv/kernel", f"{theirs}.dwconv.weight", DEPTHWISE),
            Rule(f"{ours}/depthwise_conv/bias", f"{theirs}.dwconv.bias"),
            Rule(f"{ours}/norm/gamma", f"{theirs}.layernorm.weight"),
            Rule(f"{ours}/norm/beta", f"{theirs}.layernorm.bias"),
            Rule(f"{ours}/expansion/kernel", f"{theirs}.pwconv1.weight", DENSE),
            Rule(f"{ours}/expansion/bias", f"{theirs}.pwconv1.bias"),
            Rule(f"{ours}/grn/gamma", f"{theirs}.grn.weight", CHANNELS_LAST_VECTOR),
            Rule(f"{ours}/grn/beta", f"{theirs}.grn.bias", CHANNELS_LAST_VECTOR),
            Rule(f"{ours}/projection/kernel", f"{theirs}.pwconv2.weight", DENSE),
            Rule(f"{ours}/projection/bias", f"{theirs}.pwconv2.bias"),
            Rule(f"{ours}/layer_scale/gamma", f"{theirs}.layer_scale_parameter"),
            Rule("head_norm/gamma", f"{prefix}layernorm.weight"),
            Rule("head_norm/beta", f"{prefix}layernorm.bias"),
            Rule("head/kernel", "classifier.weight", DENSE),
            Rule("head/bias", "classifier.bias"),
        ),
    )


V1, V2, BARE = make_scheme("convnext."), make_scheme("convnextv2."), make_scheme("")


def writing_scheme(architecture):
    """Returns the scheme by which the `...ForImageClassification` of an architecture takes its weights."""
    return V1 if architecture.version == 1 else V2


def model_config(architecture, image_size=224):
    """Returns the content of the `config.json` that Transformers reads beside the weights.

    Args:
        architecture: an `Architecture`.
        image_size: side in pixels of the images.

    Raises:
        PretrainedError: if Transformers has no such model.
    """
    if architecture.kernel_size != 7:
        raise PretrainedError(f"Transformers has depthwise kernels of 7, not of {architecture.kernel_size}.")
    kind = "ConvNext" if architecture.version == 1 else "ConvNextV2"
    return {
        "architectures": [f"{kind}ForImageClassification" if architecture.num_classes else f"{kind}Model"],
        "model_type": kind.lower(),
        "depths": list(architecture.depths),
        "hidden_sizes": list(architecture.dims),
        "num_stages": len(architecture.depths),
        "num_channels": architecture.channels,
        "patch_size": architecture.stem_stride,
        "image_size": image_size,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,  # of the last normalization; Transformers' own default is 1e-12
        **({"num_labels": architecture.num_classes} if architecture.num_classes else {}),
    }
