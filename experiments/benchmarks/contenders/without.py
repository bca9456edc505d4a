"""What each measure that makes the step fast is worth: the same step, without one of them.

Each function here takes one measure of `settings.MEASURES` back, in this process alone, before a contender is made.
"""


def _depthwise_gradient():
    """The gradient of the depthwise kernels is TensorFlow's own operation."""
    from convnext.tf_cpu import depthwise

    depthwise.is_tensorflow_on_cpu = lambda: False


def _patch_products():
    """Stem and downsampling are convolutions instead of matrix products."""
    from convnext.tf_cpu import patch_conv

    patch_conv.is_tensorflow_on_cpu = lambda: False


def _compiled_chains():
    """Chains of element-wise operations run one after the other."""
    from convnext.tf_cpu import fusion

    fusion.LEAST_VALUES = 2**62


def _fused_adamw():
    """Adam's step is that of Keras."""
    from experiments.optim.adamw import LayerwiseAdamW
    from experiments.optim.fused_adamw import FusedAdamW

    FusedAdamW.adam_step = LayerwiseAdamW.adam_step


def _hidden_only():
    """The decoder predicts every patch, and the loss picks the hidden ones."""
    from fcmae.decoder import Decoder
    from fcmae.layout import gather_patches

    predict = Decoder.call

    def call(self, latent, visible, chosen=None, training=None):
        prediction = predict(self, latent, visible, training=training)
        return prediction if chosen is None else gather_patches(prediction, chosen)

    Decoder.call = call


def _onednn():
    """TensorFlow runs without oneDNN; `variables` says so before TensorFlow is imported."""


TAKE_BACK = {
    "onednn": _onednn,
    "depthwise_gradient": _depthwise_gradient,
    "patch_products": _patch_products,
    "compiled_chains": _compiled_chains,
    "fused_adamw": _fused_adamw,
    "hidden_only": _hidden_only,
}


def take_back(measure):
    """Takes a measure back for the rest of this process, which has no model yet; an empty text takes none."""
    if measure:
        TAKE_BACK[measure]()


def variables(measure):
    """Returns the environment variables that a process without the measure needs."""
    return {"TF_ENABLE_ONEDNN_OPTS": "0"} if measure == "onednn" else {}
