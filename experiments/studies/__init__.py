"""Studies: many runs that answer a question, each in a folder of its own, and the tables and pictures made of them."""

from experiments.studies.ablations import Ablations
from experiments.studies.fewer_labels import FewerLabels, NaturalImages

STUDIES = {study.name: study for study in (FewerLabels, NaturalImages, Ablations)}
