"""Where the detection channel's threshold is put."""

from training.measure import PhotographResult, detection_threshold


def _result(marked: list[float], unmarked: list[float]) -> PhotographResult:
    return PhotographResult("x", 1.0, detection={"none": marked}, unmarked_detection=unmarked)


def test_the_threshold_lies_between_what_is_marked_and_what_is_not() -> None:
    assert detection_threshold([_result([6.0] * 50, [-4.0, -2.0]), _result([4.0] * 50, [-3.0])]) == 1.0


def test_no_unmarked_crop_passes_where_the_two_overlap() -> None:
    assert detection_threshold([_result([1.0] * 50, [-4.0, 3.0])]) == 3.0
