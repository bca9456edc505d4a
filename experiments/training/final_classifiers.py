"""The end of fine-tuning: which classifiers stay, and what each of them is worth."""

from convnext.weights.loader import load_pretrained
from experiments.evaluation.classification import Predictions, top_one
from experiments.evaluation.report import draw_confusion, write_report
from experiments.io import replacing
from experiments.training.workdir import save_model


def evaluate_and_save(job, validation):
    """Saves the classifiers of a run that is complete, and evaluates them on the test images.

    - `classifier.keras` has the weights of the end of the run, whatever its figures;
    - `classifier_ema.keras`, where there is a moving average, the average of the end;
    - `classifier_best.keras`, where there are validation images, the weights that were best on those at some
      evaluation, plain or average. The test images never choose.

    Of `classifier.keras` there is a report on the test images, or on the validation images where there are none or
    `report_test` is off:
    `report_test.csv` and `confusion_test.png`.

    Args:
        job: the `Job`.
        validation: its `Validation`, or None without validation images.

    Returns:
        What the summary says of it: `validation_top1`, `test_top1`, with an average both of `..._ema`, and of
        `classifier_best.keras` `best_step`, `best_epoch`, `best_weights` (`plain` or `ema`), `best_validation_top1` and
        `best_test_top1`.
    """
    model, workdir = job.model, job.workdir
    figures = dict(validation.final()) if validation else {}
    test = job.source.get("test") if job.training.report_test else None
    predict = _predictions(job, test) if test else None
    save_model(model, workdir / "classifier.keras")
    if test:
        labels, predicted = predict()
        figures["test_top1"] = top_one(labels, predicted)
        _report(job, "test", labels, predicted)
    elif validation:
        _report(job, "validation", *_predictions(job, job.source.get("validation"))())
    if job.averages:
        with job.averages.in_place():
            save_model(model, workdir / "classifier_ema.keras")
            if test:
                figures["test_top1_ema"] = top_one(*predict())
    if validation:
        figures.update({f"best_{name}": value for name, value in validation.best.record.items()})
        if test:
            load_pretrained(model, validation.best.path)  # all others are saved
            figures["best_test_top1"] = top_one(*predict())
    return figures


def _predictions(job, split):
    return Predictions(job.model, split, job.preparation, job.evaluation_batch_size)


def _report(job, name, labels, predicted):
    names = job.source.class_names
    with replacing(job.workdir / f"report_{name}.csv") as path:
        write_report(path, labels, predicted, names)
    with replacing(job.workdir / f"confusion_{name}.png") as path:
        draw_confusion(path, labels, predicted, names, f"{name} images of {job.source.name}")
