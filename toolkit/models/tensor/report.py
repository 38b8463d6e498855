"""The section of the report on the answers of an imported graph: the counts of the judge that was chosen by name."""

from toolkit.metrics.limit import SHARES
from toolkit.metrics.task import ENOUGH, JudgeChoice, is_enough
from toolkit.models.tensor import JUDGE
from toolkit.report.blocks import Cell, Column, Heading, Paragraph, Section, Table
from toolkit.report.evidence import ComparedRole, Evidence
from toolkit.report.numbers import bound, capital, form, wording

_ADVISORY = (
    "No sample was a real input. Counts on noise, constants and extremes are advisory: they are shown and not judged. "
    "Give inputs of yours with --inputs."
)
_FEW = "Fewer than {} answers to real inputs were counted: the error of the numbers is judged beside them."
_DECIDED = "These answers decide: the error of {} is shown and not judged{}."


def section(evidence: Evidence) -> Section | None:
    """Return the section, or None for a bundle without a judge that counts."""
    text = evidence.bundle.model.get(JUDGE)
    if text is None:
        return None
    choice = JudgeChoice.parse(text)
    roles = [role for role in evidence.comparisons if any(_counted(role))]
    if not roles:
        return None
    blocks: list[Paragraph | Heading | Table] = [Paragraph(f"The judge {choice} counts {choice.judge.summary}.")]
    for role in roles:
        if len(roles) > 1:
            blocks.append(Heading(role.name))
        details = next(file.total.details for file in role.files if file.total is not None)
        if details.get("on") != "real":
            blocks.append(Paragraph(_ADVISORY, "warn"))
        elif not is_enough(details):
            blocks.append(Paragraph(_FEW.format(ENOUGH), "note"))
        else:
            but = "" if choice.judge.may_reorder else ", except in float32"
            blocks.append(Paragraph(_DECIDED.format(", ".join(choice.outputs), but), "note"))
        blocks.append(_table(role))
    return Section("answers", "Answers", blocks)


def _counted(role: ComparedRole) -> list[dict[str, list[int]]]:
    """Return the counts of each file of a role: by words, how many of how many."""
    return [{} if file.total is None else file.total.details.get("counted", {}) for file in role.files]


def _table(role: ComparedRole) -> Table:
    counted = _counted(role)
    words = list(dict.fromkeys(word for one in counted for word in one))
    numbers = list(dict.fromkeys(number for file in role.files for number in file.numbers))
    rows = []
    for file, counts in zip(role.files, counted, strict=True):
        checks = {check.number: check for check in file.checks if not check.where}
        cells = [Cell(file.name)]
        for word in words:
            changed, of = counts.get(word, (0, 0))
            cells.append(Cell(f"{changed} of {of}" if of else "none", changed if of else None))
        for number in numbers:
            value, check = file.numbers.get(number), checks.get(number)
            limit = "" if check is None else f" (limit: {bound(check)})"
            tone = "fail" if check is not None and check.passed is False else ""
            cells.append(Cell(f"{form(number)(value)}{limit}", value, tone))
        rows.append(tuple(cells))
    titles = [*words, *(f"{wording(number)} (share)" if number in SHARES else wording(number) for number in numbers)]
    columns = (Column("File"), *(Column(capital(title), True) for title in titles))
    return Table(f"Answers that changed, of each file of the {role.name}", columns, tuple(rows))
