"""The authors' names (https://github.com/facebookresearch/ConvNeXt-V2 and .../ConvNeXt).

Classifiers are in PyTorch's layouts. Pretrained autoencoders of V2 come from sparse convolutions: kernels with one
axis of offsets, one more level in the names of layers, vectors as `(1, C)`; their decoder is in PyTorch's layouts.
"""

from convnext.weights.layouts import (
    CHANNELS_FIRST_VECTOR,
    CHANNELS_LAST_VECTOR,
    CONVOLUTION,
    DENSE,
    DEPTHWISE,
    POINTWISE,
    SPARSE_CONVOLUTION,
    SPARSE_DEPTHWISE,
    SPARSE_VECTOR,
)
from convnext.weights.names import Rule, Scheme


def _dense_block(ours, theirs):
    return (
        Rule(f"{ours}/depthwise_conv/kernel", f"{theirs}.dwconv.weight", DEPTHWISE),
        Rule(f"{ours}/depthwise_conv/bias", f"{theirs}.dwconv.bias"),
        Rule(f"{ours}/norm/gamma", f"{theirs}.norm.weight"),
        Rule(f"{ours}/norm/beta", f"{theirs}.norm.bias"),
        Rule(f"{ours}/expansion/kernel", f"{theirs}.pwconv1.weight", DENSE),
        Rule(f"{ours}/expansion/bias", f"{theirs}.pwconv1.bias"),
        Rule(f"{ours}/grn/gamma", f"{theirs}.grn.gamma", CHANNELS_LAST_VECTOR),
        Rule(f"{ours}/grn/beta", f"{theirs}.grn.beta", CHANNELS_LAST_VECTOR),
        Rule(f"{ours}/projection/kernel", f"{theirs}.pwconv2.weight", DENSE),
        Rule(f"{ours}/projection/bias", f"{theirs}.pwconv2.bias"),
        Rule(f"{ours}/layer_scale/gamma", f"{theirs}.gamma"),
    )


DENSE_SCHEME = Scheme(
    "the authors' code",
    (
        Rule("stem/conv/kernel", "downsample_layers.0.0.weight", CONVOLUTION),
        Rule("stem/conv/bias", "downsample_layers.0.0.bias"),
        Rule("stem/norm/gamma", "downsample_layers.0.1.weight"),
        Rule("stem/norm/beta", "downsample_layers.0.1.bias"),
        Rule("stage_{stage}/downsampling/norm/gamma", "downsample_layers.{stage}.0.weight"),
        Rule("stage_{stage}/downsampling/norm/beta", "downsample_layers.{stage}.0.bias"),
        Rule("stage_{stage}/downsampling/conv/kernel", "downsample_layers.{stage}.1.weight", CONVOLUTION),
        Rule("stage_{stage}/downsampling/conv/bias", "downsample_layers.{stage}.1.bias"),
        *_dense_block("stage_{stage}/block_{block}", "stages.{stage}.{block}"),
        Rule("head_norm/gamma", "norm.weight"),
        Rule("head_norm/beta", "norm.bias"),
        Rule("head/kernel", "head.weight", DENSE),
        Rule("head/bias", "head.bias"),
    ),
)

_BLOCK = "stage_{stage}/block_{block}"
_SPARSE_BLOCK = "encoder.stages.{stage}.{block}"

SPARSE_SCHEME = Scheme(
    "the authors' sparse code",
    (
        Rule("stem/conv/kernel", "encoder.downsample_layers.0.0.weight", CONVOLUTION),
        Rule("stem/conv/bias", "encoder.downsample_layers.0.0.bias"),
        Rule("stem/norm/gamma", "encoder.downsample_layers.0.1.weight"),
        Rule("stem/norm/beta", "encoder.downsample_layers.0.1.bias"),
        Rule("stage_{stage}/downsampling/norm/gamma", "encoder.downsample_layers.{stage}.0.ln.weight"),
        Rule("stage_{stage}/downsampling/norm/beta", "encoder.downsample_layers.{stage}.0.ln.bias"),
        Rule(
            "stage_{stage}/downsampling/conv/kernel", "encoder.downsample_layers.{stage}.1.kernel", SPARSE_CONVOLUTION
        ),
        Rule("stage_{stage}/downsampling/conv/bias", "encoder.downsample_layers.{stage}.1.bias", SPARSE_VECTOR),
        Rule(f"{_BLOCK}/depthwise_conv/kernel", f"{_SPARSE_BLOCK}.dwconv.kernel", SPARSE_DEPTHWISE),
        Rule(f"{_BLOCK}/depthwise_conv/bias", f"{_SPARSE_BLOCK}.dwconv.bias", SPARSE_VECTOR),
        Rule(f"{_BLOCK}/norm/gamma", f"{_SPARSE_BLOCK}.norm.ln.weight"),
        Rule(f"{_BLOCK}/norm/beta", f"{_SPARSE_BLOCK}.norm.ln.bias"),
        Rule(f"{_BLOCK}/expansion/kernel", f"{_SPARSE_BLOCK}.pwconv1.linear.weight", DENSE),
        Rule(f"{_BLOCK}/expansion/bias", f"{_SPARSE_BLOCK}.pwconv1.linear.bias"),
        Rule(f"{_BLOCK}/grn/gamma", f"{_SPARSE_BLOCK}.grn.gamma", SPARSE_VECTOR),
        Rule(f"{_BLOCK}/grn/beta", f"{_SPARSE_BLOCK}.grn.beta", SPARSE_VECTOR),
        Rule(f"{_BLOCK}/projection/kernel", f"{_SPARSE_BLOCK}.pwconv2.linear.weight", DENSE),
        Rule(f"{_BLOCK}/projection/bias", f"{_SPARSE_BLOCK}.pwconv2.linear.bias"),
        Rule("decoder/embedding/kernel", "proj.weight", POINTWISE),
        Rule("decoder/embedding/bias", "proj.bias"),
        Rule("decoder/mask_token", "mask_token", CHANNELS_FIRST_VECTOR),
        *_dense_block("decoder/block_{block}", "decoder.{block}"),
        Rule("decoder/prediction/kernel", "pred.weight", POINTWISE),
        Rule("decoder/prediction/bias", "pred.bias"),
    ),
)
