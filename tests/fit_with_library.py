"""A step of `fit` with the library alone; `make test-library` runs it where nothing else is installed."""

import importlib.util

import keras
import numpy as np

import convnext
import fcmae

for name in ("tensorflow", "torch", "wandb", "matplotlib"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed: the test proves nothing"
assert "site-packages" in convnext.__file__ and keras.backend.backend() == "jax"

backbone = convnext.ConvNeXtV2((1, 1), (8, 16), input_shape=(32, 32, 3), include_top=False)
model = fcmae.FCMAE(backbone, decoder_dim=8)
model.compile(keras.optimizers.AdamW(1e-2))
images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
losses = model.fit(images, batch_size=4, epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
print(f"the library alone trains on {keras.backend.backend()}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
