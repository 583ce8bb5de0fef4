"""`RecordedTrainer` with a tiny random BERT that classifies two things: the same training as the plain Trainer's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toppo.dump import open_dump

pytestmark = pytest.mark.slow  # transformers is a large dependency
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs the extra `hugging-face`")
pytest.importorskip("accelerate", reason="needs the extra `hugging-face`")
RecordedTrainer = pytest.importorskip("toppo.capture.adapters.hugging_face").RecordedTrainer
nn, Tensor = torch.nn, torch.Tensor

TASKS = ["topic", "tone"]
ROWS = [
    {"input_ids": row, "topic": row[0] % 2, "tone": row[1] % 2}
    for row in torch.randint(0, 50, (24, 6), generator=torch.Generator().manual_seed(1))
]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.encoder = transformers.BertModel(config)
        self.heads = nn.ModuleDict({task: nn.Linear(16, 2) for task in TASKS})

    def forward(self, input_ids: Tensor, **labels: Tensor) -> dict[str, Tensor]:
        seen = self.encoder(input_ids).pooler_output
        return {task: nn.functional.cross_entropy(self.heads[task](seen), labels[task]) for task in TASKS}


class Recorded(RecordedTrainer):
    def task_losses(self, model: nn.Module, inputs: Any) -> tuple[dict[str, Tensor], Any]:
        losses = model(**inputs)
        return losses, losses


class Plain(transformers.Trainer):
    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        losses = model(**inputs)
        return (sum(losses.values()), losses) if return_outputs else sum(losses.values())


def trained(
    trainer: Any, where: Path, accumulation: int, batch: int = 4, kind: Any = Classifier, **options: Any
) -> nn.Module:
    model = kind()
    args = transformers.TrainingArguments(
        output_dir=str(where),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        seed=3,
    )
    made = trainer(model=model, args=args, train_dataset=ROWS, **options)
    made.train()
    made.evaluate(ROWS)
    return model


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_training_is_the_same_and_gradients_are_recorded(tmp_path, accumulation):
    plain = trained(Plain, tmp_path, accumulation)
    options = {"path": tmp_path / "d", "tasks": TASKS, "every": 2}
    recorded = trained(Recorded, tmp_path, accumulation, record=options)
    for (name, a), b in zip(plain.named_parameters(), recorded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)
    dump = open_dump(tmp_path / "d")
    assert dump.complete
    assert dump.steps.tolist() == list(range(0, 2 * math.ceil(6 / accumulation), 2))
    names = dump.layer_names("shared")
    assert "encoder.embeddings.word_embeddings.weight" in names
    assert not [name for name in names if name.startswith("heads")]
    grams = dump["shared_layer_gram"].values
    np.testing.assert_allclose(grams.sum(axis=2), dump["shared_gram"].values, rtol=1e-6)
    assert (np.diagonal(grams.sum(axis=2), axis1=-2, axis2=-1) > 0).all()


def test_an_accumulated_step_has_the_gram_of_one_large_batch(tmp_path):
    for name, accumulation, batch in (("parts", 2, 4), ("whole", 1, 8)):
        trained(Recorded, tmp_path, accumulation, batch, record={"path": tmp_path / name, "tasks": TASKS})
    parts, whole = (open_dump(tmp_path / name)["shared_gram"].values[0, 0] for name in ("parts", "whole"))
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_a_task_can_be_absent(tmp_path):
    class Sometimes(Classifier):
        def forward(self, input_ids: Tensor, **labels: Tensor) -> dict[str, Tensor | None]:
            losses = super().forward(input_ids, **labels)
            self.calls = getattr(self, "calls", 0) + 1
            return {**losses, "tone": losses["tone"] if self.calls != 3 else None}

    class Summed(Plain):
        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            losses = model(**inputs)
            total = sum(loss for loss in losses.values() if loss is not None)
            return (total, losses) if return_outputs else total

    plain = trained(Summed, tmp_path, 1, kind=Sometimes)
    recorded = trained(
        Recorded, tmp_path, 1, kind=Sometimes, record={"path": tmp_path / "d", "tasks": TASKS, "every": 1}
    )
    for a, b in zip(plain.parameters(), recorded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    present = open_dump(tmp_path / "d")["present"].values[:, 0]
    assert (present == 0).nonzero()[0].tolist() == [2]


def test_a_second_training_is_a_recording_of_its_own(tmp_path):
    class Twice(Recorded):
        def train(self, *args: Any, **options: Any) -> Any:
            super().train(*args, **options)
            return super().train(*args, **options)

    trained(Twice, tmp_path, 1, record={"path": tmp_path / "d", "tasks": TASKS, "every": 2, "exist": "new"})
    for name in ("d", "d-2"):
        assert open_dump(tmp_path / name).steps.tolist() == list(range(0, 12, 2))


def test_a_resumed_training_keeps_what_its_combiner_has_learned(tmp_path):
    def train(name: str, steps: int, at: str | None = None) -> Any:
        args = transformers.TrainingArguments(
            output_dir=str(tmp_path / name),
            per_device_train_batch_size=4,
            max_steps=steps,
            lr_scheduler_type="constant",
            learning_rate=1e-2,
            report_to=[],
            save_steps=4,
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            seed=3,
        )
        options = {"path": tmp_path / f"{name}-dump", "tasks": TASKS, "every": 1, "combiner": "famo", "exist": "resume"}
        trainer = Recorded(model=Classifier(), args=args, train_dataset=ROWS, record=options)
        trainer.train(resume_from_checkpoint=at)
        return open_dump(tmp_path / f"{name}-dump").values("shared_weights")[:, 0]

    whole = train("whole", 8)
    half = train("halves", 4)
    again = train("halves", 8, str(tmp_path / "halves" / "checkpoint-4"))
    np.testing.assert_array_equal(half, whole[:4])
    np.testing.assert_array_equal(again, whole)
    assert not np.allclose(whole[4], whole[0])  # so a combiner that starts afresh would be seen
