"""The page of the HTML report, made of all sections, one of them from the kind of model."""

import base64
import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from backends.atomic import replacing
from toolkit.models.kind import find_kind
from toolkit.report import errors, layers, machine, summary, tradeoff
from toolkit.report.evidence import Evidence

_TEMPLATES = "templates"


def write_page(evidence: Evidence, path: Path) -> None:
    """Write the page in one step. Raises OSError if the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(render(evidence), encoding="utf-8")


def render(evidence: Evidence) -> str:
    """Return the page as HTML. Strings of a bundle are escaped; a content security policy allows only our script."""
    sections = [
        summary.section(evidence),
        tradeoff.section(evidence),
        errors.limits_section(evidence),
        layers.section(evidence),
        errors.histogram_section(evidence),
        find_kind(evidence.bundle.model["kind"]).report_section(evidence),
        machine.operators_section(evidence),
        machine.machine(evidence),
        machine.manifest(evidence),
    ]
    verdict, good = summary.headline(evidence)
    style, script = (_template(name) for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        model=evidence.bundle.model["name"],
        weights=evidence.bundle.weights,
        verdict=verdict,
        good=good,
        sections=[section for section in sections if section is not None],
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("seal-toolkit"),
        # The policy allows only the style and the script with these hashes.
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _template(name: str) -> str:
    return files("toolkit.report").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
