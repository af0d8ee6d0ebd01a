"""Causes that act in the forward pass and its derivatives."""

from __future__ import annotations

from functools import partial

from harness.cause import Cause
from harness.editing import Edit

_F = partial(Cause, acts="forward")
_G = partial(Cause, acts="gradient")


def _keeps(edit: Edit) -> bool:
    """A factor below 1 on one side alone, as the share of the units that a dropout keeps."""
    scale = edit.before or edit.after
    return scale.offset == 0 and 0 < scale.factor < 1


def _by_a_root(edit: Edit) -> bool:
    """A factor that one side has besides: the root of a whole number, as of the features that a product sums over."""
    small, large = sorted(map(abs, (edit.before, edit.after)))
    square = (large / small) ** 2 if small else 0.0
    return square > 1.5 and abs(square - round(square)) <= 1e-9 * square


def _identity(edit: Edit) -> bool:
    """A slope of 1 below 0: no activation at all."""
    return 1.0 in (edit.before, edit.after)


def _last_or_final(edit: Edit) -> bool:
    return {edit.before, edit.after} == {"last", "final"}


CAUSES = (
    # --- weights ------------------------------------------------------------------------------------------------
    _F(
        id="weight-layout-transpose",
        meaning="a Dense or Linear kernel copied without transpose",
        edits=("Affine.kernel_axes", "map:transpose"),
        source="torch Linear (out, in); Keras Dense (in, out)",
    ),
    _F(
        id="conv-kernel-axes",
        meaning="a convolution kernel's axes permuted wrongly (height and width swapped)",
        edits=("Conv.kernel_axes", "ConvTranspose.kernel_axes", "map:kernel"),
        source="torch OIHW; Keras HWIO",
    ),
    _F(
        id="flatten-order",
        meaning="C,H,W against H,W,C flattening before a dense layer",
        edits=("Flatten.order", "map:flatten"),
        source="torch is channels first, Keras channels last",
    ),
    _F(
        id="weight-order-mismatch",
        meaning="the right arrays in the wrong places (mean and variance, two layers)",
        edits=("map:order", "Exchanged.source", "Weights.source", "SoftmaxOver:+Permute"),
        along=("Exchanged.source", "Weights.source"),
        source="order of set_weights and state_dict",
    ),
    _F(id="weights-not-transferred", meaning="a parameter pair holds unrelated values", edits=("map:values",)),
    _F(id="init-default", meaning="initial weights never copied", edits=("map:all-values",)),
    _F(
        id="conv-groups-order",
        meaning="grouped or depthwise convolution with channels in another order",
        edits=("Conv.group_order", "ConvTranspose.group_order", "GroupNorm.group_order"),
    ),
    _F(
        id="convtranspose-kernel-flip",
        meaning="transposed convolution kernel flipped, or its channel axes swapped",
        edits=("ConvTranspose.flip",),
        source="jax.lax.conv_transpose(transpose_kernel=False) flips; torch and Keras do not",
    ),
    _F(
        id="bias-missing",
        meaning="a bias (or scale, or offset) exists on one side only",
        edits=(
            *(
                "Affine.bias",
                "Conv.bias",
                "ConvTranspose.bias",
                "MultiHeadAttention.bias",
                "MultiHeadAttention.out_bias",
            ),
            *("norm.scale", "norm.offset"),
        ),
    ),
    # --- layers -------------------------------------------------------------------------------------------------
    _F(
        id="layer-missing",
        meaning="a layer exists on one side only, or sits at another place",
        edits=("+", "+Scale", "Reads.source", "SoftmaxOver:+Permute", "SoftmaxOver:+Scale"),
    ),
    _F(id="layer-different", meaning="another kind of layer", edits=(">",)),
    _F(
        id="activation-different",
        meaning="another activation function, or applied at another place",
        edits=(
            *("activation>activation", "+activation", "SimpleRNN.activation", "LSTM.activation", "GRU.activation"),
            *("LSTM.output_activation", "Gated.activation", "Gated.gate", "Rectifier.maximum", "Rectifier.threshold"),
            *(
                "ELU.alpha",
                "ELU.scale",
                "ELU.divisor",
                "Swish.beta",
                "Softplus.beta",
                "Function.name",
                "Mish.threshold",
            ),
            *(
                "SoftShrink.bound",
                "HardShrink.bound",
                "Threshold.threshold",
                "Threshold.value",
                "ClippedLinear.minimum",
            ),
            *("ClippedLinear.maximum", "LeakyReLU.negative_slope", "Rectifier.negative_slope", "SoftmaxOver:+Scale"),
        ),
        when=lambda edit: edit.field != "negative_slope" or _identity(edit),
    ),
    _F(
        id="leakyrelu-slope",
        meaning="LeakyReLU negative slope",
        edits=("LeakyReLU.negative_slope", "Rectifier.negative_slope", "ReLU>LeakyReLU"),
        when=lambda edit: edit.field != "negative_slope" or not _identity(edit),
        source="torch 2.13 nn/modules/activation.py 0.01; Keras 3.15 layers/activations/leaky_relu.py 0.3",
    ),
    _F(
        id="gelu-approximation",
        meaning="exact erf against tanh GELU",
        edits=("GELU.form",),
        along=("GELU.scale", "GELU.cubic"),
        source="torch 2.13 gelu(approximate='none'); jax.nn.gelu(approximate=True); Keras 3.15 approximate=False",
    ),
    _F(
        id="hard-sigmoid-slope",
        meaning="0.2x+0.5 against x/6+0.5",
        edits=("ClippedLinear.slope", "ClippedLinear.offset", "HardSwish.slope", "HardSwish.offset"),
        along=("ClippedLinear.derivative", "ClippedLinear.offset"),
        source="Keras 2 0.2x+0.5; torch 2.13 hardsigmoid and Keras 3.15 x/6+0.5",
    ),
    _F(
        id="prelu-sharing",
        meaning="PReLU slope per element, per channel or global",
        edits=("PReLU.shared_axes",),
        source="torch PReLU(num_parameters=1); Keras PReLU(shared_axes=None)",
    ),
    _F(
        id="softplus-threshold",
        meaning="linear branch above 20",
        edits=("Softplus.threshold",),
        source="torch 2.13 nn.Softplus(threshold=20); Keras and JAX have none",
    ),
    _F(
        id="truncated-constant",
        meaning="a constant typed with too few digits, or another one",
        edits=(
            *("GELU.scale", "GELU.cubic", "Scale.factor", "Scale.offset", "LogCosh.log_2", "Norm.epsilon"),
            *("UnitNorm.epsilon", "Deviation.epsilon", "Function.exponent", "ResponseNorm.alpha", "ResponseNorm.k"),
        ),
    ),
    _F(
        id="softmax-axis",
        meaning="softmax or normalisation over another axis",
        edits=("SoftmaxOver.axes", "Softmax>SoftmaxOver", "UnitNorm.axes", "LogSumExp.axes", "SoftmaxOver.log"),
    ),
    _F(
        id="double-softmax",
        meaning="softmax in the model and again inside the loss",
        edits=("CrossEntropy:+SoftmaxOver", "BinaryCrossEntropy:+Sigmoid", "CrossEntropy:+Sigmoid"),
    ),
    # --- convolution and pooling --------------------------------------------------------------------------------
    _F(
        id="conv-same-padding-asymmetry",
        meaning="'same' with stride 2 pads (0,1); padding=1 pads (1,1)",
        edits=("Conv.padding", "MaxPool.padding", "AveragePool.padding"),
        source="TensorFlow's SAME: the odd element goes behind; torch pads both sides alike",
    ),
    _F(
        id="convtranspose-padding",
        meaning="'same' transposed convolution against padding/output_padding",
        edits=("ConvTranspose.padding", "ConvTranspose.output_padding"),
    ),
    _F(
        id="conv-stride-dilation",
        meaning="stride, dilation or window differs",
        edits=(
            *("Conv.stride", "Conv.dilation", "Conv.groups", "ConvTranspose.stride", "ConvTranspose.dilation"),
            *("MaxPool.size", "MaxPool.stride", "MaxPool.dilation", "AveragePool.size", "AveragePool.stride"),
        ),
        along=("Conv.padding", "ConvTranspose.padding", "MaxPool.padding", "AveragePool.padding"),
    ),
    _F(
        id="padding-value",
        meaning="explicit padding with another value or mode",
        edits=("Conv.padding_mode", "Conv.padding_value", "Pad.mode", "Pad.value", "Pad.widths"),
    ),
    _F(
        id="avgpool-count-include-pad",
        meaning="padding counted in the average or not",
        edits=("AveragePool.count_include_pad", "AveragePool.divisor"),
        source="torch 2.13 AvgPool2d(count_include_pad=True); TensorFlow's SAME does not count it",
    ),
    _F(
        id="maxpool-padding-value",
        meaning="explicit zero padding against implicit -inf",
        edits=("MaxPool.padding_value",),
    ),
    _F(
        id="pool-ceil-mode",
        meaning="ceil against floor output size",
        edits=("MaxPool.ceil_mode", "AveragePool.ceil_mode", "LpPool.ceil_mode"),
    ),
    _F(
        id="resize-align-corners",
        meaning="interpolation grid convention",
        edits=("Resize.grid", "Resize.interpolation", "Resize.nearest_rounding", "Resize.cubic_a", "Resize.step"),
        along=("Resize.border", "Resize.step"),
        source="torch 2.13 interpolate(align_corners=False); TensorFlow v2 half-pixel centres",
    ),
    _F(
        id="resize-antialias",
        meaning="interpolation with and without antialiasing",
        edits=("Resize.antialias", "Resize.border"),
        along=("Resize.border",),
    ),
    # --- normalisation ------------------------------------------------------------------------------------------
    _F(
        id="batchnorm-eps",
        meaning="BatchNorm epsilon",
        edits=("BatchNorm.epsilon",),
        source="torch 2.13 nn/modules/batchnorm.py 1e-5; Keras 3.15 layers/normalization/batch_normalization.py 1e-3",
    ),
    Cause(
        id="batchnorm-momentum",
        acts="state",
        meaning="momentum convention (m against 1-m) or value",
        edits=("BatchNorm.momentum",),
        source="torch 2.13 0.1 of the new; Keras 3.15 0.99 of the old",
    ),
    Cause(
        id="batchnorm-unbiased-variance",
        acts="state",
        meaning="running variance with n-1 or n",
        edits=("BatchNorm.moving_variance",),
        source="torch 2.13 n-1 (nn/modules/batchnorm.py); Keras 3.15 n (ops.moments)",
    ),
    _F(
        id="train-eval-mode",
        meaning="one side in training mode, the other in inference mode",
        edits=("BatchNorm.training", "BatchNorm.tracks"),
        along=("BatchNorm.tracks",),
    ),
    _F(
        id="dropout-active",
        meaning="dropout applied at inference",
        edits=("Dropout.active", "+Dropout", "Dropout.rate"),
    ),
    _F(
        id="dropout-scaling",
        meaning="kept units scaled or not",
        edits=("Dropout.scaling", "+Scale"),
        when=lambda edit: bool(edit.field) or _keeps(edit),
    ),
    _F(
        id="layernorm-eps",
        meaning="LayerNorm epsilon",
        edits=("LayerNorm.epsilon", "LayerNorm.epsilon_placement"),
        source="torch 2.13 1e-5; Keras 3.15 1e-3",
    ),
    _F(
        id="groupnorm-eps",
        meaning="GroupNorm epsilon",
        edits=("GroupNorm.epsilon", "GroupNorm.epsilon_placement"),
        source="torch 2.13 1e-5; Keras 3.15 1e-3",
    ),
    _F(
        id="rmsnorm-eps",
        meaning="RMS normalisation epsilon",
        edits=("RMSNorm.epsilon", "RMSNorm.epsilon_placement"),
        source="torch 2.13 finfo(dtype).eps by default; Keras 3.15 1e-6",
    ),
    _F(
        id="norm-axis",
        meaning="a norm layer reduces over other axes or groups channels otherwise",
        edits=(
            "LayerNorm.axes",
            "RMSNorm.axes",
            "GroupNorm.groups",
            "BatchNorm.axis",
            "norm>norm",
            "ResponseNorm.below",
        ),
    ),
    _F(
        id="std-unbiased",
        meaning="standard deviation with n-1 or n in user code",
        edits=("Deviation.ddof", "LayerNorm.ddof"),
        source="torch.std n-1; NumPy, TensorFlow, JAX n",
    ),
    # --- recurrence ---------------------------------------------------------------------------------------------
    _F(
        id="rnn-gate-order",
        meaning="LSTM or GRU gate blocks in another order",
        edits=("LSTM.gates", "GRU.gates", "map:gates"),
        source="GRU: torch r z n; Keras z r h",
    ),
    _F(
        id="gru-reset-after",
        meaning="reset gate before or after the recurrent product",
        edits=("GRU.reset_after",),
        along=("GRU.biases",),
        source="torch after; Keras 3.15 GRU(reset_after=True), Keras 2 before",
    ),
    _F(
        id="rnn-recurrent-activation",
        meaning="hard_sigmoid against sigmoid gates",
        edits=("LSTM.recurrent_activation", "GRU.recurrent_activation"),
    ),
    _F(
        id="rnn-batch-first",
        meaning="recurrence run over the wrong axis",
        edits=("SimpleRNN.time_axis", "LSTM.time_axis", "GRU.time_axis"),
        source="torch 2.13 batch_first=False; Keras is batch first",
    ),
    _F(
        id="rnn-bidirectional-last",
        meaning="last step of the sequence against final state of the backward direction",
        edits=("SimpleRNN.returns", "LSTM.returns", "GRU.returns"),
        when=_last_or_final,
    ),
    _F(
        id="rnn-return-sequences",
        meaning="all steps against the last one",
        edits=("SimpleRNN.returns", "LSTM.returns", "GRU.returns"),
        along=("+Reduce", "+Slice"),
    ),
    _F(
        id="rnn-direction",
        meaning="the recurrence runs backwards on one side",
        edits=("SimpleRNN.reverse", "LSTM.reverse", "GRU.reverse"),
    ),
    _F(
        id="sequence-masking",
        meaning="mask or packing of padded steps on one side only",
        edits=(
            *("SimpleRNN.masked", "LSTM.masked", "GRU.masked", "SimpleRNN.masked_output", "LSTM.masked_output"),
            *("GRU.masked_output", "Reduce.masked", "BatchNorm.masked", "Mask.source"),
        ),
    ),
    _F(
        id="rnn-double-bias",
        meaning="two trained biases against one: the effective bias moves twice as fast",
        edits=("SimpleRNN.biases", "LSTM.biases", "GRU.biases", "links:added"),
        source="torch b_ih and b_hh; Keras one bias (GRU reset_after: two)",
    ),
    _F(
        id="rnn-initial-state",
        meaning="another initial state, or state carried between batches",
        edits=("SimpleRNN.initial", "LSTM.initial", "GRU.initial"),
    ),
    _F(
        id="gate-bias",
        meaning="another bias layout (forget-gate offset, separate recurrent bias)",
        edits=("LSTM.forget_offset", "GRU.update"),
        source="Keras 3.15 unit_forget_bias=True at initialisation; TF1's LSTMCell adds forget_bias=1.0",
    ),
    # --- attention and embedding --------------------------------------------------------------------------------
    _F(
        id="attention-mask-convention",
        meaning="True = attend against True = ignore",
        edits=(
            *("Attention.mask", "MultiHeadAttention.mask", "Attention.causal", "MultiHeadAttention.causal"),
            *("SoftmaxOver:+Select", "SoftmaxOver:+Combine"),
            *("Attention:Mask.source", "MultiHeadAttention:Mask.source", "SoftmaxOver:Mask.source"),
        ),
        along=(
            "Mask.source",
            *("Attention.mask", "MultiHeadAttention.mask"),
            *("Attention.causal_offset", "MultiHeadAttention.causal_offset", "Attention.masked_value"),
        ),
        source="torch MultiheadAttention attn_mask: True is ignored; scaled_dot_product_attention, Keras: True attends",
    ),
    _F(
        id="attention-scale",
        meaning="1/sqrt(d) missing on one side",
        edits=(*("Attention.scale", "MultiHeadAttention.scale", "scores:+Scale", "scores:Scale.factor"),),
        when=lambda edit: edit.field != "factor" or _by_a_root(edit),
    ),
    _F(
        id="attention-fully-masked-row",
        meaning="NaN against a finite value when every key is masked",
        edits=(
            *("Attention.empty_row", "MultiHeadAttention.empty_row", "Attention.masked_value"),
            *("MultiHeadAttention.masked_value", "Attention.masking", "MultiHeadAttention.masking"),
        ),
    ),
    _G(
        id="embedding-padding-idx",
        meaning="padding row excluded from training on one side",
        edits=("Embedding.padding_index",),
        source="torch Embedding(padding_idx); Keras Embedding(mask_zero) trains the row",
    ),
    # --- derivatives at one point, and by hand ------------------------------------------------------------------
    _G(
        id="max-tie-gradient",
        meaning="gradient of max at ties",
        edits=("Extremum.tie", "Combine.tie"),
        source="maximum(x, 0) at 0: torch 0.5, TensorFlow 1, JAX 0.5; max over a tie: torch first, others split",
    ),
    _G(
        id="maxpool-tie-gradient",
        meaning="another element of a tied window receives the gradient",
        edits=("MaxPool.tie", "AdaptivePool.tie"),
        source="torch and TensorFlow first, JAX halves",
    ),
    _G(
        id="clip-boundary-gradient",
        meaning="gradient of clamp or relu6 exactly at the bound",
        edits=(
            *("Rectifier.slope_at_maximum", "Rectifier.slope_at_threshold", "ClippedLinear.slope_at_minimum"),
            *("LeakyReLU.slope_at_maximum", "LeakyReLU.slope_at_threshold", "CategoricalHinge.slope_at_margin"),
            *("ClippedLinear.slope_at_maximum", "HardSwish.slope_at_minimum", "HardSwish.slope_at_maximum"),
            *("ELU.slope_at_zero", "LeakyReLU.slope_at_zero", "PReLU.slope_at_zero", "Absolute.slope_at_zero"),
            *("SoftShrink.slope_at_bound", "HardShrink.slope_at_bound", "AbsoluteError.slope_at_zero"),
            *("Hinge.slope_at_margin",),
        ),
        source="torch and TensorFlow clamp 1 at the bound, JAX 0.5; leaky_relu(0): slope, slope, 1",
    ),
    _G(
        id="norm-gradient-at-zero",
        meaning="gradient of the Euclidean norm at 0 (0 against NaN)",
        edits=("Norm.slope_at_zero", "Deviation.slope_at_zero"),
        source="torch 0; TensorFlow and JAX NaN",
    ),
    _G(
        id="detached-branch",
        meaning="stop_gradient or detach on one side",
        edits=("+Detach", "gradient:zero"),
    ),
    _G(id="gradient-sign", meaning="a hand-written backward with the wrong sign", edits=("gradient:sign",)),
    _G(id="gradient-factor", meaning="a hand-written backward off by a constant factor", edits=("gradient:factor",)),
    _G(id="gradient-transposed", meaning="a hand-written backward that is transposed", edits=("gradient:transposed",)),
    _G(
        id="gradient-missing-term",
        meaning="a hand-written backward that drops a term, a mask or a broadcast sum",
        edits=("gradient:other",),
    ),
    _G(
        id="grad-accumulation",
        meaning="gradients accumulate over steps (missing zero_grad), or over another number of them",
        edits=("Accumulation.cleared", "Accumulation.every", "gradient:piled", "update:none"),
    ),
    _G(
        id="gradient-accumulation-mean",
        meaning="accumulated gradients summed or averaged",
        edits=("Accumulation.combine", "gradient:averaged"),
    ),
    _G(
        id="frozen-parameter",
        meaning="a parameter trains on one side only",
        edits=("Rule.trained", "update:zero"),
    ),
)
"""In the order in which a network computes."""
