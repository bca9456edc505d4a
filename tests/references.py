"""Independent versions of the numerics: NumPy, float64, one explicit step after the other.

Written from the paper (https://arxiv.org/abs/2301.00808). The masked encoder has no grid and no multiplication
by a mask: it keeps a list of the positions that exist, as a sparse convolution does, and looks neighbours up.

`weights` is always `{name: array}`, names relative to the layer that the function describes.
"""

import numpy as np
from scipy.special import erf

EPSILON = 1e-6


def within(weights, prefix):
    """Returns the weights below `prefix`, with names relative to it."""
    prefix += "/"
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def dense(x, weights):
    """`(..., C)` to `(..., D)`."""
    return x @ weights["kernel"] + weights["bias"]


def layer_norm(x, weights):
    """`(..., C)`: every position is brought to mean 0 and variance 1 over its channels."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return weights["gamma"] * centred / np.sqrt(variance + EPSILON) + weights["beta"]


def gelu(x):
    """The exact GELU: x times the normal distribution function at x."""
    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


def grn_sites(x, weights):
    """Global response normalization of the positions of one image, `(positions, C)`."""
    norm = np.sqrt((x**2).sum(axis=0) + EPSILON)
    response = norm / (norm.mean() + EPSILON)
    return weights["gamma"] * (x * response) + weights["beta"] + x


def grn(x, weights, visible=None):
    """Global response normalization of `(B, H, W, C)`.

    With `visible`, boolean `(B, H, W)`, only the positions where it holds make the statistics and are normalized;
    the others come out as NaN, since the layer promises nothing there.
    """
    if visible is None:
        visible = np.ones(x.shape[:-1], bool)
    outputs = np.full(x.shape, np.nan)
    for image, kept, output in zip(x, visible, outputs):
        output[kept] = grn_sites(image[kept], weights)
    return outputs


def depthwise_conv(x, weights):
    """`(B, H, W, C)` with an odd kernel `(k, k, C, 1)`; zeros beyond the border, the size stays."""
    size = weights["kernel"].shape[0]
    height, width = x.shape[1:3]
    margin = size // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    output = np.zeros(x.shape) + weights["bias"]
    for row in range(size):
        for column in range(size):
            window = padded[:, row : row + height, column : column + width]
            output += window * weights["kernel"][row, column, :, 0]
    return output


def strided_conv(x, weights):
    """`(B, H, W, C)` to `(B, H // s, W // s, D)`: kernel `(s, s, C, D)`, stride s, what is left over is cut off."""
    stride = weights["kernel"].shape[0]
    height, width = (side // stride * stride for side in x.shape[1:3])
    output = np.zeros((1, 1, 1, 1)) + weights["bias"]
    for row in range(stride):
        for column in range(stride):
            output = output + x[:, row:height:stride, column:width:stride] @ weights["kernel"][row, column]
    return output


def stem(images, weights):
    """`(B, H, W, channels)` to `(B, H // s, W // s, C)`."""
    return layer_norm(strided_conv(images, within(weights, "conv")), within(weights, "norm"))


def downsampling(x, weights):
    """`(B, H, W, C)` to `(B, H // 2, W // 2, D)`."""
    return strided_conv(layer_norm(x, within(weights, "norm")), within(weights, "conv"))


def branch(convolved, weights, normalize_response):
    """What a block adds, after its depthwise convolution; of V1 where the weights have a layer scale."""
    x = gelu(dense(layer_norm(convolved, within(weights, "norm")), within(weights, "expansion")))
    if "layer_scale/gamma" in weights:
        return weights["layer_scale/gamma"] * dense(x, within(weights, "projection"))
    return dense(normalize_response(x, within(weights, "grn")), within(weights, "projection"))


def block(x, weights):
    """The ConvNeXt block, `(B, H, W, C)`."""
    return x + branch(depthwise_conv(x, within(weights, "depthwise_conv")), weights, grn)


def features(images, weights, depths):
    """The output of each stage of the backbone: a list of `(B, h, w, C)`."""
    x = stem(images, within(weights, "stem"))
    outputs = []
    for i, depth in enumerate(depths):
        stage = within(weights, f"stage_{i}")
        if i:
            x = downsampling(x, within(stage, "downsampling"))
        for j in range(depth):
            x = block(x, within(stage, f"block_{j}"))
        outputs.append(x)
    return outputs


def logits(images, weights, depths):
    """The classifier: `(B, num_classes)`."""
    last = features(images, weights, depths)[-1]
    pooled = last.sum(axis=(1, 2)) / (last.shape[1] * last.shape[2])
    return dense(layer_norm(pooled, within(weights, "head_norm")), within(weights, "head"))


def depthwise_conv_sites(x, sites, weights):
    """Depthwise convolution over positions in a list.

    Args:
        x: `(n, C)`, the positions that exist.
        sites: `(n, 2)` integers, their rows and columns.
        weights: kernel `(k, k, C, 1)` and bias.
    """
    index = {site: i for i, site in enumerate(map(tuple, sites.tolist()))}
    margin = weights["kernel"].shape[0] // 2
    output = np.zeros(x.shape) + weights["bias"]
    for i, (row, column) in enumerate(index):
        for down in range(-margin, margin + 1):
            for right in range(-margin, margin + 1):
                neighbour = index.get((row + down, column + right))
                if neighbour is not None:
                    output[i] += x[neighbour] * weights["kernel"][down + margin, right + margin, :, 0]
    return output


def block_sites(x, sites, weights):
    """The ConvNeXt block over the positions of one image that exist: `x` is `(n, C)`, `sites` `(n, 2)`."""
    return x + branch(depthwise_conv_sites(x, sites, within(weights, "depthwise_conv")), weights, grn_sites)


def downsampling_sites(x, sites, weights):
    """Joins positions four by four: `(n, C)` to `(n / 4, D)`, and the sites of the result."""
    normalized = layer_norm(x, within(weights, "norm"))
    conv = within(weights, "conv")
    coarse = np.unique(sites // 2, axis=0)
    output = np.zeros((len(coarse), conv["kernel"].shape[-1])) + conv["bias"]
    index = {site: i for i, site in enumerate(map(tuple, coarse.tolist()))}
    for value, (row, column) in zip(normalized, sites.tolist()):
        output[index[row // 2, column // 2]] += value @ conv["kernel"][row % 2, column % 2]
    return output, coarse


def encode_image(image, visible, weights, depths):
    """The masked encoder on one image: hidden positions do not exist.

    Args:
        image: `(H, W, channels)`.
        visible: `(rows, columns)` boolean, the patches that exist.
        weights: of the backbone.
        depths: number of blocks of each stage.

    Returns:
        `(rows, columns, C)`, zero at hidden patches.
    """
    stride = weights["stem/conv/kernel"].shape[0]
    side = 2 ** (len(depths) - 1)  # positions of the first stage on the side of a patch
    every_site = np.argwhere(np.ones([length * side for length in visible.shape]))
    sites = np.array([site for site in every_site if visible[tuple(site // side)]])
    cells = np.stack([image[r * stride : (r + 1) * stride, c * stride : (c + 1) * stride] for r, c in sites])
    x = stem(cells, within(weights, "stem"))[:, 0, 0]
    for i, depth in enumerate(depths):
        stage = within(weights, f"stage_{i}")
        if i:
            x, sites = downsampling_sites(x, sites, within(stage, "downsampling"))
        for j in range(depth):
            x = block_sites(x, sites, within(stage, f"block_{j}"))
    output = np.zeros((*visible.shape, x.shape[-1]))
    output[tuple(sites.T)] = x
    return output


def encode(images, visible, weights, depths):
    """The masked encoder: images `(B, H, W, channels)`, visible `(B, rows, columns)` to `(B, rows, columns, C)`."""
    return np.stack([encode_image(image, kept > 0, weights, depths) for image, kept in zip(images, visible)])


def decode(latent, visible, weights, depth=1):
    """The decoder: latent `(B, rows, columns, C)`, visible `(B, rows, columns)` to `(B, L, values)`."""
    x = np.empty((*latent.shape[:-1], len(weights["mask_token"])))
    x[...] = weights["mask_token"]
    x[visible > 0] = dense(latent[visible > 0], within(weights, "embedding"))
    for i in range(depth):
        x = block(x, within(weights, f"block_{i}"))
    prediction = dense(x, within(weights, "prediction"))
    return np.stack([image.reshape(-1, image.shape[-1]) for image in prediction])


def patches(images, size):
    """`(B, H, W, channels)` to `(B, L, size * size * channels)`, cut out one by one, row by row."""
    rows, columns = images.shape[1] // size, images.shape[2] // size
    cut = [
        images[:, r * size : (r + 1) * size, c * size : (c + 1) * size].reshape(len(images), -1)
        for r in range(rows)
        for c in range(columns)
    ]
    return np.stack(cut, axis=1)


def targets(images, size, normalize=True):
    """What the decoder has to predict, `(B, L, size * size * channels)`."""
    cut = patches(images, size)
    if not normalize:
        return cut
    return (cut - cut.mean(axis=-1, keepdims=True)) / np.sqrt(cut.var(axis=-1, ddof=1, keepdims=True) + EPSILON)


def losses(prediction, expected, visible):
    """`(B,)`: the mean of the squared errors of all values of an image's hidden patches; visible is `(B, L)`."""
    error = (prediction - expected) ** 2
    return np.array([image[kept == 0].mean() for image, kept in zip(error, visible)])
