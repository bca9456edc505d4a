"""Opens the source that a configuration names."""

from experiments.config import DataConfig
from experiments.data.cache import with_cache
from experiments.data.source import Source
from experiments.data.sources.digits import open_digits
from experiments.data.sources.folder import open_folder
from experiments.data.sources.folder_with_masks import open_folder_with_masks
from experiments.data.sources.mix import mix
from experiments.data.sources.shards import open_shards, open_webdataset
from experiments.errors import UserError


def open_source(config: DataConfig, masks: bool = False) -> Source:
    """Returns the `Source` of a `DataConfig`.

    Args:
        config: the `DataConfig`.
        masks: whether its images have to have masks, for segmentation.

    Raises:
        UserError: if it cannot be opened.
    """
    sources = [_open(source, config, masks) for source, _ in config.sources]
    weights = [weight for _, weight in config.sources]
    source = mix(sources, weights) if len(sources) > 1 else sources[0]
    return with_cache(source, config.cache)


def _open(source: str, config: DataConfig, masks: bool) -> Source:
    kind, _, name = source.partition(":")
    if masks and (kind not in ("folder", "tfds") or len(config.sources) > 1):
        raise UserError(
            f"finetune.task=segmentation needs one folder:PATH or tfds:NAME; data.source={config.source!r}."
        )
    if kind == "tfds":
        from experiments.data.sources.tfds import open_tfds  # importing TensorFlow Datasets takes seconds

        return open_tfds(name, config, masks)
    if kind == "digits":
        return open_digits()
    if kind == "folder":
        return (open_folder_with_masks if masks else open_folder)(name, config)
    return {"shards": open_shards, "webdataset": open_webdataset}[kind](name, config)
