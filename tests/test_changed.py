"""The inner loop runs the tests that belong to what was changed, and no others."""

from pathlib import Path

import pytest

from tests.changed import find_tests

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("files", "tests"),
    [
        (["backends/tensor.py"], ["tests/backends/test_tensor.py"]),
        (["toolkit/metrics/error.py"], ["tests/metrics/test_error.py"]),
        (["toolkit/convert/job.py"], ["tests/convert"]),  # no test is named after it
        (["toolkit/convert/job.py", "toolkit/convert/slices.py"], ["tests/convert"]),
        (["tests/cli/test_help.py", "README.md"], ["tests/cli/test_help.py"]),
        (["tests/bisect/small.py"], ["tests/bisect"]),
        (["tests/cli/test_gone.py"], []),
    ],
)
def test_a_changed_file_has_the_tests_of_its_name_or_of_its_room(files: list[str], tests: list[str]) -> None:
    assert find_tests(map(Path, files), ROOT) == list(map(Path, tests))
