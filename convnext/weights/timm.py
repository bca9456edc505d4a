"""The names of timm (https://github.com/huggingface/pytorch-image-models): `convnext_*` and `convnextv2_*`.

timm builds the four smallest sizes with 1x1 convolutions where the others have dense layers.
"""

from convnext.variants import CONVNEXT_V2
from convnext.weights.layouts import CONVOLUTION, DENSE, DENSE_OR_POINTWISE, DEPTHWISE, POINTWISE
from convnext.weights.names import Rule, Scheme

POINTWISE_VARIANTS = ("atto", "femto", "pico", "nano")


def make_scheme(dense):
    """Returns the scheme with a layout of the dense layers in the blocks."""
    ours, theirs = "stage_{stage}/block_{block}", "stages.{stage}.blocks.{block}"
    return Scheme(
        "timm",
        (
            Rule("stem/conv/kernel", "stem.0.weight", CONVOLUTION),
            Rule("stem/conv/bias", "stem.0.bias"),
            Rule("stem/norm/gamma", "stem.1.weight"),
            Rule("stem/norm/beta", "stem.1.bias"),
            Rule("stage_{stage}/downsampling/norm/gamma", "stages.{stage}.downsample.0.weight"),
            Rule("stage_{stage}/downsampling/norm/beta", "stages.{stage}.downsample.0.bias"),
            Rule("stage_{stage}/downsampling/conv/kernel", "stages.{stage}.downsample.1.weight", CONVOLUTION),
            Rule("stage_{stage}/downsampling/conv/bias", "stages.{stage}.downsample.1.bias"),
            Rule(f"{ours}/depthwise_conv/kernel", f"{theirs}.conv_dw.weight", DEPTHWISE),
            Rule(f"{ours}/depthwise_conv/bias", f"{theirs}.conv_dw.bias"),
            Rule(f"{ours}/norm/gamma", f"{theirs}.norm.weight"),
            Rule(f"{ours}/norm/beta", f"{theirs}.norm.bias"),
            Rule(f"{ours}/expansion/kernel", f"{theirs}.mlp.fc1.weight", dense),
            Rule(f"{ours}/expansion/bias", f"{theirs}.mlp.fc1.bias"),
            Rule(f"{ours}/grn/gamma", f"{theirs}.mlp.grn.weight"),
            Rule(f"{ours}/grn/beta", f"{theirs}.mlp.grn.bias"),
            Rule(f"{ours}/projection/kernel", f"{theirs}.mlp.fc2.weight", dense),
            Rule(f"{ours}/projection/bias", f"{theirs}.mlp.fc2.bias"),
            Rule(f"{ours}/layer_scale/gamma", f"{theirs}.gamma"),
            Rule("head_norm/gamma", "head.norm.weight"),
            Rule("head_norm/beta", "head.norm.bias"),
            Rule("head/kernel", "head.fc.weight", DENSE),
            Rule("head/bias", "head.fc.bias"),
        ),
    )


READING = make_scheme(DENSE_OR_POINTWISE)


def writing_scheme(architecture):
    """Returns the scheme by which timm's model of an architecture takes its weights.

    Args:
        architecture: an `Architecture`.
    """
    pointwise = [CONVNEXT_V2[name].dims for name in POINTWISE_VARIANTS]  # those of timm's V1 too
    return make_scheme(POINTWISE if architecture.dims in pointwise else DENSE)
