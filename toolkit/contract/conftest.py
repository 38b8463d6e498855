"""The test cases of the contract: each backend with each file of the shipped detector that it opens."""

import pytest

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import BACKENDS, BackendSpec, run_targets
from toolkit.contract import find_shipped

_BUNDLE = Bundle.open(find_shipped())


def _chosen(config: pytest.Config) -> list[tuple[BackendSpec, Artifact]]:
    """Return each tested backend with each file of the shipped detector that it runs, in each precision.

    Raises UsageError if there is none.
    """
    name = config.getoption("--backend")
    found = []
    for artifact in (a for a in _BUNDLE.artifacts if a.role == "detector"):
        if name is None:
            found += [(BACKENDS.load(target.backend), target.artifact) for target in run_targets(artifact)]
        else:
            found += [(BACKENDS.load(name), one) for one in BACKENDS.load(name).runs(artifact)]
    if not found:
        raise pytest.UsageError(f"--backend {name}: it opens no file of the shipped model")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with `case` on every case, a test with `profiled_case` on those whose backend has a profiler."""
    for fixture in ("case", "profiled_case"):
        if fixture in metafunc.fixturenames:
            cases = [case for case in _chosen(metafunc.config) if fixture == "case" or case[0].profile is not None]
            metafunc.parametrize(fixture, cases, ids=[f"{spec.name}-{one.file}-{one.precision}" for spec, one in cases])


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """Return the bundle of the model that ships with this package."""
    return _BUNDLE
