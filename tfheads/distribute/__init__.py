"""Training on several devices and hosts through `tf.distribute`: strategies, and what training needs of replicas.

strategy = tfheads.distribute.strategy("auto")
with strategy.scope():
    model = tfheads.AutoModelForCausalLM.from_pretrained(...)
    model.compile()
model.fit(...)
"""

from tfheads.distribute.agreement import barrier, is_chief, require_agreement
from tfheads.distribute.replicas import sum_over_replicas
from tfheads.distribute.strategies import STRATEGIES, strategy

__all__ = ["STRATEGIES", "barrier", "is_chief", "require_agreement", "strategy", "sum_over_replicas"]
