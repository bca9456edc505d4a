"""Workdirs of runs as files, without the runs."""

import json

import numpy as np
from PIL import Image

CLASSES = ("shirt", "trouser")
TOP1 = (80.0, 62.5)
STARTED = "2026-01-31T12:00:00+00:00"


def segment(**fields):
    """A segment of `environment.json` of 100 seconds."""
    return {
        "command": "python -m launch.pretrain --workdir=runs/a",
        "from_step": 0,
        "to_step": 40,
        "total_steps": 40,
        "images": 123,
        "started": STARTED,
        "last_seen": "2026-01-31T12:01:40+00:00",
        "ended": "2026-01-31T12:01:40+00:00",
        "devices": "2 x GPU, mirrored",
        "gpus": ["Some GPU", "Some GPU"],
        "precision": "float32",
        "hardware": {"cpu": "Some CPU", "cores": 2, "system": "Some system"},
        "versions": {"python": "3.11.7", "keras": "3.15.1"},
        "commit": "0123456789abcdef",
        "uncommitted_changes": True,
        **fields,
    }


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def write_picture(path, value=0):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)


def pretrained(workdir, seed=0, mask_ratio=0.6, lines=4):
    """Writes the workdir of a complete pretraining run of 4 epochs of 10 steps."""
    workdir.mkdir(parents=True)
    config = {
        "seed": seed,
        "data": {"source": "digits"},
        "pretrain": {"mask_ratio": mask_ratio, "epochs": 4},
        "finetune": {"epochs": seed},
        "pretrained": "",
    }
    write_json(workdir / "config.json", {"task": "pretrain", "config": config})
    metrics = [
        {"step": 0, "random_knn_top1": 50.25},
        *(
            {"step": 10 * i, "epoch": float(i), "loss": 1.0 / i, "images_per_second": 100.0 + i, "learning_rate": 0.1}
            for i in range(1, lines + 1)
        ),
        {"step": 40, "knn_top1": 61.25},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    summary = {"task": "pretrain", "steps": 40, "images": 123, "seconds": 99.5, "validation_loss": 0.4321 + seed}
    write_json(workdir / "summary.json", {**summary, "knn_top1": 61.25, "random_knn_top1": 50.25})
    write_json(workdir / "environment.json", {"segments": [segment()]})
    for step in (10, 20, 40):
        write_picture(workdir / "reconstructions" / f"step_{step:08d}.png", step)
    return workdir


def finetuned(workdir, start="", test_top1=70.0, classes=CLASSES):
    """Writes the workdir of a complete fine-tuning run without metrics."""
    workdir.mkdir(parents=True)
    config = {"seed": 0, "data": {"source": "digits"}, "finetune": {"epochs": 2}, "pretrained": str(start)}
    write_json(workdir / "config.json", {"task": "finetune", "config": config})
    (workdir / "metrics.jsonl").write_text("")
    summary = {"task": "finetune", "steps": 8, "images": 50, "seconds": 7261.0, "classes": classes}
    write_json(workdir / "summary.json", {**summary, "validation_top1": 72.5, "test_top1": test_top1})
    write_json(workdir / "best.json", {"step": 4, "epoch": 1.0, "weights": "plain", "validation_top1": 74.25})
    write_json(workdir / "environment.json", {"segments": [segment(images=50)]})
    rows = [f'"{name}",40,{0.4 * top1:g},40,{top1},50,' for name, top1 in zip(classes, TOP1)]
    head = "class,images,correct,predicted,top1,precision,f1"
    (workdir / "report_test.csv").write_text("\n".join([head, *rows]) + "\n")
    write_picture(workdir / "confusion_test.png", 7)
    write_picture(workdir / "augmentation.png", 8)
    return workdir
