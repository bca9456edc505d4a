from experiments.config.data import *  # noqa
