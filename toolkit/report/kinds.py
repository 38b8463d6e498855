"""The section that a kind of model brings to the page, where it has one."""

from collections.abc import Callable

from backends.registry import Registry
from toolkit.report.blocks import Section
from toolkit.report.evidence import Evidence

# By the `kind` of a bundle's manifest. Each makes a Section from Evidence, or None where there is nothing to show.
SECTIONS = Registry("section of a report")
SECTIONS.register("watermark", "toolkit.report.photographs:section", needs="pillow")


def section_of(evidence: Evidence) -> Section | None:
    """The kind's own section; None for a kind that has none."""
    kind = evidence.bundle.model["kind"]
    if kind not in SECTIONS.names:
        return None
    make: Callable[[Evidence], Section | None] = SECTIONS.load(kind)
    return make(evidence)
