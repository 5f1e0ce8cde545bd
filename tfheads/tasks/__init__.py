"""Tasks that do more than a backbone with a head; each registers itself, as those of `tfheads.models` do."""

from tfheads.tasks.conditional_generation import ForConditionalGeneration
from tfheads.tasks.document_classification import ForDocumentClassification
from tfheads.tasks.text_classification import ForTextClassification

__all__ = ["ForConditionalGeneration", "ForDocumentClassification", "ForTextClassification"]
