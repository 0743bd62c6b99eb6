from jaxbn import derivation as derivation, reference as reference
from jaxbn._conv.rules import conv as conv, conv_transpose as conv_transpose
from jaxbn._norm.rules import Moments as Moments, batch_norm as batch_norm, batch_norm_inference as batch_norm_inference
