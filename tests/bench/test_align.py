"""A file's operators beside what XNNPACK says that it ran."""

from backends.bundle import Bundle
from backends.litert import BACKEND as LITERT
from backends.profiling import profile
from toolkit.bench.profile import aligned, operator_names


def test_the_same_operators_by_other_names_are_paired_in_order() -> None:
    file = ["MUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LOGISTIC"]
    ran = [
        "Multiply (ND)",
        "Convolution (NHWC, F32) IGEMM",
        "Convolution (NHWC, F32) DWConv",
        "Fully Connected (NC, F32) GEMM",
        "Sigmoid (NC)",
    ]
    assert aligned(file, ran) == [0, 1, 2, 3, 4]


def test_two_made_one_and_one_added_do_not_shift_what_follows() -> None:
    file = ["CONV_2D", "MUL", "MEAN", "ADD", "FULLY_CONNECTED", "CONV_2D", "MUL", "MEAN"]
    ran = [
        "Convolution (NHWC, F32) IGEMM",
        "Mean Squared (ND) Reduce2",
        "Add (ND)",
        "Convert (NC, F32, QD8)",
        "Fully Connected (NC, QD8, F32, QC8W) GEMM",
        "Convolution (NHWC, F32) IGEMM",
        "Mean Squared (ND) Reduce2",
    ]
    assert aligned(file, ran) == [0, 2, 3, None, 4, 5, 7]


def test_an_operator_with_weights_is_never_given_up_for_several_small_ones() -> None:
    file = ["ADD", "ADD", "ADD", "FULLY_CONNECTED"]
    ran = ["Fully Connected (NC, F32) GEMM", "Add (ND)", "Add (ND)", "Add (ND)"]
    assert aligned(file, ran) == [3, None, None, None]


def test_every_operator_with_weights_of_a_real_profile_gets_its_own_name(tiny: Bundle) -> None:
    path = tiny.folder / tiny.find("detector", "tflite", "fp32").file
    kinds = [time.kind for time in profile(path, LITERT.profile, threads=1, runs=1)]
    names = operator_names(path, kinds)
    weighted = [name for name, kind in zip(names, kinds, strict=True) if kind.startswith(("Convolution", "Fully"))]
    assert len(weighted) == 3
    assert len(set(weighted)) == 3
    assert "" not in weighted
