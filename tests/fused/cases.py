"""The table of batch norms with ReLU and with convolution."""

from itertools import product

from tests.support.cases import LAYOUTS, MASKS, Case, Shape, act_case, fused_conv_case, norm_case

BLOCK: dict[str, Shape | None] = {"x": (3, 5, 4, 2), "gamma": (2,), "beta": (2,), "kernel": (3, 2, 2, 3)}

FUSED_CASES = [
    *(
        norm_case("batch_norm_relu", (3, 4, 5), axis, given)
        for axis, given in product((1, -1), [(1, 1), (1, 0), (0, 1)])
    ),
    *(norm_case("batch_norm_relu", (4, 3, 5, 2), 1, (1, 1), where=kind, epsilon=1e-2) for kind in MASKS),
    fused_conv_case((2, 5, 6, 4), ((3, 2), 1, 1), 3, (1, 1, 1), padding="SAME"),
    fused_conv_case((3, 5, 6, 4), ((3, 2), (2, 1), 1), 3, (1, 0, 0), padding=1, epsilon=1e-2),
    fused_conv_case((3, 6, 7, 4), ((2, 3), 1, 2), 6, (0, 1, 1), groups=2, flip_kernel=True),
    fused_conv_case((2, 5, 6, 4), ((1, 1), 1, 1), 3, (0, 0, 1), where="random"),
    fused_conv_case((3, 5, 6, 4), ((2, 2), 2, 1), 5, (1, 1, 1), where="images", padding=((1, 0), (0, 2))),
    fused_conv_case((3, 5, 6, 4), ((3, 2), 2, 1), 5, (1, 1, 1), dimension_numbers=LAYOUTS[2][1]),
    fused_conv_case((3, 5, 6, 4), ((2, 3), 1, 1), 5, (1, 1, 0), dimension_numbers=LAYOUTS[2][2]),
    Case(
        "batch_norm_relu_conv",
        {"x": (4, 7, 3), "gamma": (3,), "beta": (3,), "kernel": (3, 1, 6), "bias": None},
        {"groups": 3, "padding": "SAME_LOWER"},
    ),
    Case(
        "batch_norm_relu_conv",
        {"x": (2, 4, 3, 5, 2), "gamma": (2,), "beta": (2,), "kernel": (2, 1, 3, 2, 3), "bias": (3,)},
    ),
    *(act_case((3, 4, 5, 2), -1, name) for name in ("silu", "gelu", "leaky_relu", "hard_swish", "elu", "prelu")),
    act_case((3, 5, 2), 1, "relu", epsilon=1e-2),
    act_case((4, 3, 5, 2), 1, "sigmoid", where="random"),
    act_case((4, 3, 5), -1, "prelu", where="images"),
    Case("batch_norm_act", {"x": (3, 4, 5), "gamma": None, "beta": None}, {"activation": "silu"}),
    Case(
        "batch_norm_act_inference",
        {"x": (3, 4, 5), "mean": (4,), "var": (4,), "gamma": (4,), "beta": (4,), "residual": (3, 4, 5), "slope": (5,)},
        {"axis": 1, "activation": "prelu", "epsilon": 1e-2},
    ),
    Case("batch_norm_act_inference", {"x": (3, 4, 5), "mean": (5,), "var": (5,)}, {"activation": "gelu"}),
    *(
        Case(
            "batch_norm_act_conv",
            {**BLOCK, "bias": (3,), "residual": BLOCK["x"]},
            {"activation": name, "padding": "SAME", "stride": (1, 2), **options},
        )
        for name, options in (
            ("silu", {"return_activation": True}),
            ("leaky_relu", {"where": "random"}),
            ("relu", {"return_activation": True, "where": "images"}),
        )
    ),
]


# One of each operation, for what is too costly to try on all.
COVERING_CASES = [
    norm_case("batch_norm_relu", (3, 4, 5, 2), 1, (1, 1), where="random"),
    act_case((3, 4, 5, 2), -1, "silu"),
    fused_conv_case((3, 5, 4, 2), ((3, 2), (1, 2), 1), 3, (1, 1, 1), padding="SAME"),
    Case(
        "batch_norm_act_inference",
        {"x": (3, 5, 2), "mean": (2,), "var": (2,), "gamma": (2,), "beta": (2,), "residual": (3, 5, 2), "slope": (2,)},
        {"activation": "prelu"},
    ),
    Case(
        "batch_norm_act_conv",
        {**BLOCK, "bias": (3,), "residual": BLOCK["x"]},
        {"activation": "silu", "padding": "SAME", "return_activation": True},
    ),
]

IMAGE: dict[str, Shape | None] = {"x": (4, 5, 9, 3), "gamma": (3,), "beta": (3,)}
MASKED_CASES = [
    Case("batch_norm_relu", IMAGE, {"where": "images"}),
    Case("batch_norm_relu_conv", {**IMAGE, "kernel": (3, 2, 3, 4)}, {"where": "images"}),
    act_case((4, 5, 9, 3), -1, "silu", where="images"),
    act_case((4, 5, 9, 3), -1, "prelu", where="images").in_forward_mode,
]

# Small ones of each operation with a residual connection and SiLU, for second derivatives in every order.
SMALL: dict[str, Shape | None] = {"x": (3, 3, 2), "gamma": (2,), "beta": (2,), "residual": (3, 3, 2)}
SILU_CASES = [
    Case("batch_norm_act", SMALL, {"activation": "silu"}),
    Case("batch_norm_act_inference", {**SMALL, "mean": (2,), "var": (2,)}, {"activation": "silu"}),
    Case("batch_norm_act_conv", {**SMALL, "kernel": (2, 2, 1)}, {"activation": "silu", "return_activation": True}),
]
