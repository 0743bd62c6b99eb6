from jaxbn import derivation as derivation, reference as reference
from jaxbn._conv.explanation import ConvExplanation as ConvExplanation, explain_conv as explain_conv
from jaxbn._conv.general import conv_general_dilated as conv_general_dilated
from jaxbn._conv.public_maps import (
    convolve as convolve,
    convolve_input_gradient as convolve_input_gradient,
    convolve_kernel_gradient as convolve_kernel_gradient,
)
from jaxbn._conv.rules import conv as conv, conv_transpose as conv_transpose
from jaxbn._fused.batch_norm_relu import batch_norm_relu as batch_norm_relu
from jaxbn._fused.batch_norm_relu_conv import batch_norm_relu_conv as batch_norm_relu_conv
from jaxbn._norm.calibration import (
    CalibratedBatchNorm as CalibratedBatchNorm,
    calibrated_batch_norm as calibrated_batch_norm,
)
from jaxbn._norm.inference import batch_norm_inference as batch_norm_inference
from jaxbn._norm.moments import Moments as Moments
from jaxbn._norm.rules import batch_norm as batch_norm
from jaxbn._norm.running import (
    RunningStats as RunningStats,
    init_running_stats as init_running_stats,
    update_running_stats as update_running_stats,
)
