"""Tasks that do more than a backbone with a head; each registers itself, as those of `tfheads.models` do."""

from tfheads.tasks.conditional_generation import ForConditionalGeneration
from tfheads.tasks.document_classification import ForDocumentClassification

__all__ = ["ForConditionalGeneration", "ForDocumentClassification"]
