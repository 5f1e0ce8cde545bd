# Made by `python -m tfheads.stub`; a test compares.

from tfheads.models import BareModel as BareModel
from tfheads.models import ForCausalLM as ForCausalLM
from tfheads.models import ForMaskedLM as ForMaskedLM
from tfheads.optimizers import create_optimizer_and_schedule as create_optimizer_and_schedule
from tfheads.optimizers import AdamW as AdamW
from tfheads.callbacks import EvaluationCallback as EvaluationCallback
from tfheads.callbacks import KerasMetricCallback as KerasMetricCallback
from tfheads.callbacks import PushToHubCallback as PushToHubCallback
from tfheads.callbacks import TensorBoardCallback as TensorBoardCallback
from tfheads.callbacks import TrainingState as TrainingState
from tfheads.callbacks import WandbCallback as WandbCallback
from tfheads.callbacks import fit_resumable as fit_resumable
from tfheads.pipelines import pipeline as pipeline

__version__: str

class BertModel(BareModel): ...
class BertLMHeadModel(ForCausalLM): ...
class BertForMaskedLM(ForMaskedLM): ...
class GPT2Model(BareModel): ...
class GPT2LMHeadModel(ForCausalLM): ...

AutoModel = BareModel
AutoModelForCausalLM = ForCausalLM
AutoModelForMaskedLM = ForMaskedLM
create_optimizer = create_optimizer_and_schedule
TFAutoModel = BareModel
TFAutoModelForCausalLM = ForCausalLM
TFAutoModelForMaskedLM = ForMaskedLM
TFBertModel = BertModel
TFBertLMHeadModel = BertLMHeadModel
BertForCausalLM = BertLMHeadModel
TFBertForCausalLM = BertLMHeadModel
TFBertForMaskedLM = BertForMaskedLM
TFGPT2Model = GPT2Model
TFGPT2LMHeadModel = GPT2LMHeadModel
GPT2ForCausalLM = GPT2LMHeadModel
TFGPT2ForCausalLM = GPT2LMHeadModel
