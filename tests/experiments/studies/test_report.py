"""The reports of both studies, made of figures that are written by hand."""

import dataclasses
import json

import pytest

from experiments.errors import UserError
from experiments.models import make_fcmae
from experiments.studies.ablations import AS_GOOD, FINDINGS, VARIANTS, Ablations, compare
from experiments.studies.budgets import NATURAL_IMAGES, Budget, Length
from experiments.studies.fewer_labels import FewerLabels, NaturalImages
from experiments.studies.report import difference, fill_document, shown, summary, table_lines
from experiments.training.workdir import write_json
from fcmae import StemMaskedFCMAE
from tests.experiments.tiny import tiny_config

VALIDATION = {3e-4: 60.0, 1e-3: 65.0, 3e-3: 64.0}
BUDGET = Budget(
    pretraining_steps=10,
    few=(Length("50", 5, 10, rates=tuple(VALIDATION)),),
    many=(Length("all", 8, 10, choice_steps=4, rates=tuple(VALIDATION)),),
    subsets=2,
)
# Top-1 on the test images, {(labels, start, seed): ...}.
TEST = {
    ("50", "pretrained", 0): 82.0,
    ("50", "pretrained", 1): 84.0,
    ("50", "scratch", 0): 77.0,
    ("50", "scratch", 1): 78.0,
    ("all", "pretrained", 0): 91.0,
}


@pytest.fixture
def fewer_labels(tmp_path):
    """A study of two seeds, of which the second is not complete with all labels."""
    study = FewerLabels(tmp_path, tiny_config(), BUDGET, (0, 1), 1000)
    for labels in ("50", "all"):
        for start in ("pretrained", "scratch"):
            folder = tmp_path / "seed_0" / f"labels_{labels}" / start
            for rate, top1 in VALIDATION.items():
                write(folder / f"{'short_' * (labels == 'all')}rate_{rate:g}" / "summary.json", validation_top1=top1)
    for (labels, start, seed), top1 in TEST.items():
        folder = tmp_path / f"seed_{seed}" / f"labels_{labels}" / start / "rate_0.001"
        write(folder / "summary.json", validation_top1=65.0)
        write(folder / "test.json", test_top1=top1)
    for encoder, top1 in (("pretrained", 70.0), ("random", 50.0)):
        for i, labels in enumerate(("50", "all")):
            folder = tmp_path / "seed_0" / f"labels_{labels}" / "probes" / encoder
            write(folder / "probes.json", knn=top1 + i, linear=top1 + 10 + i)
    return study


def write(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values)


def results_of(study):
    return study.collect(lambda trial: trial.result)


def lines_of(study):
    return table_lines(study, results_of(study))


def test_mean_and_std_are_those_of_the_sample():
    assert summary({0: 82.0, 1: 84.0, 2: None}) == {
        "values": {"0": 82.0, "1": 84.0},
        "mean": 83.0,
        "std": pytest.approx(2**0.5),
    }
    assert shown(summary({0: 82.0, 1: 84.0})) == "83.0 ± 1.4"
    assert shown(summary({0: 82.04})) == "82.0" and shown(summary({0: None})) == ""
    assert shown(difference(summary({0: 82.0, 1: 84.0}), summary({0: 77.0, 1: 78.0})), signed=True) == "+5.5 ± 0.7"


def test_the_table_has_the_figures_of_the_folders(fewer_labels):
    lines = lines_of(fewer_labels)
    assert lines[0] == (
        "| labels | fine-tuned, pretrained | fine-tuned, scratch | gain | linear probe, pretrained "
        "| linear probe, random | k-NN, pretrained | k-NN, random |"
    )
    assert lines[2:4] == [
        "| 50 | 83.0 ± 1.4 | 77.5 ± 0.7 | +5.5 ± 0.7 | 80.0 | 60.0 | 70.0 | 50.0 |",
        "| 1,000 | 91.0 |  |  | 81.0 | 61.0 | 71.0 | 51.0 |",
    ]
    assert "| 50, scratch | 0.001 | 0.0003: 60.0, 0.001: 65.0, 0.003: 64.0 | 5 of 10 | 5 of 10 |" in lines


def test_numbers_of_labels_whose_runs_are_to_come_have_no_row(fewer_labels):
    more = dataclasses.replace(BUDGET, few=(*BUDGET.few, Length("200", 5, 10)))
    extended = dataclasses.replace(fewer_labels, budget=more)
    assert lines_of(extended) == lines_of(fewer_labels)


def test_a_table_without_rows_is_left_out(fewer_labels, tmp_path):
    empty = dataclasses.replace(fewer_labels, root=tmp_path / "nothing")
    assert lines_of(empty) == ["No figures yet.", ""]
    write(empty.root / "seed_0" / "labels_50" / "probes" / "random" / "probes.json", knn=50.0, linear=60.0)
    header, _, row, _ = lines_of(empty)
    assert header.startswith("| labels | fine-tuned") and row == "| 50 |  |  |  |  | 60.0 |  | 50.0 |"


def test_a_choice_at_the_edge_is_told(fewer_labels, tmp_path):
    folder = tmp_path / "seed_0" / "labels_50" / "scratch"
    for rate, top1 in ((3e-3, 66.0), (1e-2, 67.0), (3e-2, 68.0)):
        write(folder / f"rate_{rate:g}" / "summary.json", validation_top1=top1)
    rates = results_of(fewer_labels)["rows"][0]["rates"]["scratch"]
    assert rates["chosen"] == 3e-2 and rates["at_edge"]
    table = "\n".join(lines_of(fewer_labels))
    assert "| 50, scratch | 0.03 (at the edge of what was tried) | 0.0003: 60.0, " in table


def test_pictures_are_drawn_of_what_there_is(fewer_labels, tmp_path):
    fewer_labels.draw(results_of(fewer_labels), tmp_path / "some.png")
    empty = dataclasses.replace(fewer_labels, root=tmp_path / "nothing")
    empty.draw(results_of(empty), tmp_path / "none.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("some.png", "none.png"))


def test_few_labels_come_first_for_all_seeds_and_nothing_comes_twice(fewer_labels):
    names = [(trial.task, trial.name) for trial in fewer_labels.trials()]
    last_few = max(i for i, (_, name) in enumerate(names) if "labels_50" in name)
    assert last_few < min(i for i, (_, name) in enumerate(names) if "labels_all" in name)
    assert names[0] == ("pretrain", "seed_0/pretraining")
    tests = [name for task, name in names if task == "test"]
    assert len(tests) == 8 and all(name.endswith("/rate_0.001") and "short" not in name for name in tests)


def test_the_starts_differ_in_nothing_but_the_encoder_and_the_rate(fewer_labels):
    runs = {trial.name: trial.config.to_dict() for trial in fewer_labels.trials() if trial.task == "finetune"}
    one, other = (runs[f"seed_1/labels_50/{start}/rate_0.001"] for start in ("pretrained", "scratch"))
    assert one.pop("pretrained").endswith("seed_1/pretraining") and other.pop("pretrained") == ""
    assert one == other and one["seed"] == 1


def test_each_start_chooses_its_recipe_with_its_rate_and_the_other_seeds_keep_both(tmp_path):
    recipes = {"scratch": {"strong": {"weight_decay": 0.01}, "light": {"weight_decay": 0.02, "label_smoothing": 0.1}}}
    budget = dataclasses.replace(BUDGET, many=(), more_rates=0, recipes=recipes)
    study = FewerLabels(tmp_path, tiny_config(), budget, (0, 1), 1000)
    folder = tmp_path / "seed_0" / "labels_50" / "scratch"
    for recipe, gain in (("strong", 0.0), ("light", 0.5)):
        for rate, top1 in VALIDATION.items():
            name = folder / recipe / f"rate_{rate:g}" / "summary.json"
            write(name, validation_top1=top1 + gain * (rate == 3e-3) + 2 * gain * (rate == 1e-3))
    assert results_of(study)["rows"][0]["rates"]["scratch"] == {
        "recipe": "light", "chosen": 1e-3, "at_edge": False,
        "tried": {
            "strong 0.0003": 60.0, "strong 0.001": 65.0, "strong 0.003": 64.0,
            "light 0.0003": 60.0, "light 0.001": 66.0, "light 0.003": 64.5,
        },
    }  # fmt: skip
    runs = {trial.name: trial.config for trial in study.trials() if trial.task == "finetune" and trial.config}
    chosen = runs["seed_1/labels_50/scratch/light/rate_0.001"].finetune
    assert (chosen.weight_decay, chosen.label_smoothing) == (0.02, 0.1)
    assert runs["seed_0/labels_50/scratch/strong/rate_0.001"].finetune.weight_decay == 0.01
    assert runs["seed_0/labels_50/pretrained/rate_0.001"].finetune.weight_decay == tiny_config().finetune.weight_decay
    table = "\n".join(lines_of(study))
    assert "| 50, scratch | light 0.001 | strong 0.0003: 60.0, " in table


@pytest.mark.parametrize("budget", NATURAL_IMAGES.values())
def test_the_budgets_of_natural_images_outlast_json_and_fit_the_configuration(tmp_path, budget):
    assert Budget.of(json.loads(json.dumps(dataclasses.asdict(budget)))) == budget
    study = NaturalImages(tmp_path, tiny_config(), budget, (0,), 1000)
    decays = {
        t.name.split("/")[2]: t.config.finetune.layer_decay for t in study.trials() if t.task == "finetune" and t.config
    }
    assert decays == {"pretrained": tiny_config().finetune.layer_decay, "scratch": 1.0}


# Ablations.


def test_the_variants_have_names_of_their_own_and_each_changes_what_it_says(tmp_path):
    base = tiny_config()
    configs = {variant.name: variant.config_of(base) for variant in VARIANTS}
    assert len(configs) == len(VARIANTS)
    assert {configs[f"mask_ratio_{ratio}"].pretrain.mask_ratio for ratio in (0.2, 0.4, 0.75, 0.9)} == {
        0.2, 0.4, 0.75, 0.9,
    }  # fmt: skip
    assert configs["decoder_depth_2"].model.decoder_depth == 2
    assert not configs["targets_not_normalized"].pretrain.normalize_targets
    assert type(make_fcmae(configs["masked_after_stem"])) is StemMaskedFCMAE
    frozen = make_fcmae(configs["without_grn"])
    still = [v.path for v in frozen.backbone.non_trainable_variables if "grn" in v.path]
    assert len(still) == 2 * sum(base.model.stages[0])
    study = Ablations(tmp_path, base, BUDGET_OF_ABLATIONS, (0,), 1000)
    steps = {trial.name.split("/")[0]: trial.length[0] for trial in study.trials() if trial.task == "pretrain"}
    assert "no_pretraining" not in steps and steps["half_as_long"] == 5 and steps["twice_as_long"] == 20


BUDGET_OF_ABLATIONS = dataclasses.replace(BUDGET, many=(), more_rates=0)


def test_variants_are_compared_label_choice_by_label_choice(tmp_path):
    base = tiny_config()
    base = dataclasses.replace(base, pretrain=dataclasses.replace(base.pretrain, mask_ratio=0.5))
    study = Ablations(tmp_path, base, BUDGET_OF_ABLATIONS, (0,), 1000)
    for variant, top1 in (("baseline", (65.0, 67.0)), ("masked_after_stem", (61.0, 62.0))):
        folder = tmp_path / variant / "seed_0"
        for rate in VALIDATION:
            figure = top1[0] if rate == 1e-3 else 50.0
            write(folder / "subset_0" / f"rate_{rate:g}" / "summary.json", validation_top1=figure)
        write(folder / "subset_1" / "rate_0.001" / "summary.json", validation_top1=top1[1])
        write(folder / "probes" / "probes.json", knn=70.0, linear=75.0)
    lines = lines_of(study)
    assert lines[2].startswith("| baseline: mask ratio 0.5, GRN, ")  # that of the configuration
    label = "masked after the stem alone, dense convolutions"
    assert f"| {label} | 61.5 ± 0.7 | -4.5 ± 0.7 | 75.0 | 70.0 | 10 | 0.001 |" in lines
    (line,) = [line for line in lines if line.startswith("| sparse convolutions, not masking alone")]
    assert line.endswith("| +4.5 ± 0.7 | as in the paper |")
    assert len(lines) == 2 + 2 + 1 + 2 + 1 + 1  # variants and findings without figures have no row
    study.draw(results_of(study), tmp_path / "ablations.png")
    assert (tmp_path / "ablations.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("better", "other", "verdict", "as_good"),
    [
        ((65.0, 67.0), (61.0, 62.0), "as in the paper", "as in the paper"),  # 4.5 +- 0.7, twice its error is 1.0
        ((61.0, 62.0), (65.0, 67.0), "differs", "differs"),
        ((65.0, 67.0), (66.0, 65.5), "not settled", "as in the paper"),  # 0.25 +- 1.8
        ((65.0,), (61.0,), None, None),
    ],
)
def test_a_finding_of_the_paper_is_compared_with_ours(better, other, verdict, as_good):
    rows = [{"name": name, "finetuned": summary(dict(enumerate(v)))} for name, v in (("a", better), ("b", other))]
    assert compare(rows, "a", "b")["verdict"] == verdict
    assert compare(rows, "a", "b", as_good=True)["verdict"] == as_good


def test_findings_name_variants():
    names = {variant.name for variant in VARIANTS}
    assert all(set(pair) <= names for pair in FINDINGS.values()) and AS_GOOD in FINDINGS


# The document.


def test_a_document_is_filled_between_its_marks(fewer_labels, tmp_path):
    document = tmp_path / "study.md"
    (tmp_path / "results.md").write_text("| a |\n")
    (tmp_path / "results.png").write_bytes(b"picture")
    document.write_text("before\n<!-- fewer_labels: begin -->\nold\n<!-- fewer_labels: end -->\nafter\n")
    for _ in range(2):  # the second time it finds its own
        fill_document(document, fewer_labels)
        assert document.read_text() == (
            "before\n<!-- fewer_labels: begin -->\n\n| a |\n\n![Top-1 on the test images by number of labels]"
            "(study_fewer_labels.png)\n\n<!-- fewer_labels: end -->\nafter\n"
        )
    assert (tmp_path / "study_fewer_labels.png").read_bytes() == b"picture"
    with pytest.raises(UserError, match="has no lines <!-- fewer_labels: begin -->"):
        fill_document(tmp_path / "results.md", fewer_labels)
