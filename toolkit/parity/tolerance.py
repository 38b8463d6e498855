"""How far each kind of file may be from the reference, and why that far. Written down before anything is measured."""

from backends.errors import NotAvailable
from toolkit.parity.limit import FP16, FP32, INT8_W, STATIC, Limit, Tolerance
from toolkit.parity.network_tolerances import CAPTIONER, DEEPENCODER, FOVEATED


def tolerance_for(kind: str, role: str, precision: str) -> Tolerance:
    """The tolerance of a file. Raises NotAvailable where nobody has written one: there is no default."""
    found = TOLERANCES.get((kind, role, precision)) or TOLERANCES.get((kind, "*", precision))
    if found is None:
        known = sorted({key[2] for key in TOLERANCES if key[0] == kind and key[1] in (role, "*")})
        raise NotAvailable(
            f"no tolerance is written down for kind {kind!r}, role {role!r}, precision {precision!r}, so nothing is "
            f"judged; there is {', '.join(known) or 'none'} (toolkit/parity/tolerance.py)"
        )
    return found


def _relative(at_most: float) -> tuple[Limit, ...]:
    return (Limit("relative_l2", at_most, needs_training=False),)


def _informed(at_most: float) -> tuple[Limit, ...]:
    """And the error may not be as large as all that inputs change in the output: then it may as well ignore them."""
    return (*_relative(at_most), Limit("of_variation", 1.0, needs_training=False))


def _message(flipped: float, loss: float, verdicts: float, channel: float) -> tuple[Limit, ...]:
    return (
        Limit("bits_flipped", flipped, needs_training=True),
        Limit("accuracy_loss", loss, needs_training=True),
        Limit("verdicts_changed", verdicts, needs_training=True),
        Limit("channel_changed", channel, needs_training=True),
    )


_INT8 = (
    "Weights and activations in steps of 1/127 of the largest, about 4e-3 of it a rounding, several times that of a "
    "typical value. Twenty layers that add it up independently come to some percent; at 10% the answer is another one."
)
_LOGITS = (
    " Of marked photographs: a Gaussian logit changes sign with probability arctan(relative error)/pi, so {} of "
    "flipped bits is what such an error explains where the logits are the closest to zero that they can be. "
)
_TENSOR = (
    "What the outputs mean is not known here. Integers and booleans follow from comparisons of numbers: in float32 "
    "they must be the same, and elsewhere as many may change as there are numbers near enough to each other."
)
_VERDICT = (
    "A verdict may change on at most {} of the readings, those that stand within a bit or two of its border anyway."
)

# kind, role ("*": any), precision.
TOLERANCES: dict[tuple[str, str, str], Tolerance] = {
    ("watermark", "detector", "fp32"): Tolerance(
        outputs=_informed(1e-4),
        changed=0.0,
        task=_message(flipped=1e-4, loss=1e-4, verdicts=0.0, channel=1e-4),
        reason=FP32 + _LOGITS.format("1e-4") + "No verdict may change.",
    ),
    ("watermark", "detector", "fp16"): Tolerance(
        outputs=_informed(1e-2),
        changed=0.0,
        task=_message(flipped=1e-3, loss=2e-4, verdicts=0.0, channel=1e-3),
        reason=FP16 + _LOGITS.format("3e-3") + "Trained logits lie further from zero: a third of it. "
        "No verdict may change.",
    ),
    ("watermark", "detector", "int8"): Tolerance(
        outputs=_informed(0.1),
        changed=0.0,
        task=_message(flipped=1e-2, loss=1e-3, verdicts=2e-3, channel=5e-3),
        reason=_INT8 + _LOGITS.format("3%") + "Trained logits lie further from zero: a third of it. Most of these bits "
        "were as likely wrong as right before, so a loss of 0.1 percentage points of bits right is all that is "
        "allowed. " + _VERDICT.format("2 in 1000"),
    ),
    ("watermark", "detector", "int8-static"): Tolerance(
        outputs=_informed(0.2),
        changed=0.0,
        task=_message(flipped=2e-2, loss=2e-3, verdicts=5e-3, channel=1e-2),
        reason=STATIC + _LOGITS.format("6%") + "Trained logits: a third of it, and a loss of 0.2 percentage points of "
        "bits right. " + _VERDICT.format("5 in 1000"),
    ),
    ("watermark", "detector", "int8-w"): Tolerance(
        outputs=_informed(0.05),
        changed=0.0,
        task=_message(flipped=5e-3, loss=1e-3, verdicts=2e-3, channel=5e-3),
        reason=INT8_W + _LOGITS.format("1.6%") + "Trained logits: a third of it. " + _VERDICT.format("2 in 1000"),
    ),
    ("watermark", "detector", "int16x8"): Tolerance(
        outputs=_informed(0.05),
        changed=0.0,
        task=_message(flipped=5e-3, loss=1e-3, verdicts=2e-3, channel=5e-3),
        reason=INT8_W
        + " Activations in 16 bits add nothing that shows."
        + _LOGITS.format("1.6%")
        + "Trained logits: a "
        "third of it. " + _VERDICT.format("2 in 1000"),
    ),
    ("watermark", "detector", "mixed"): Tolerance(
        outputs=_informed(0.05),
        changed=0.0,
        task=_message(flipped=2e-3, loss=1e-3, verdicts=0.0, channel=2e-3),
        reason="Layers that were measured to matter stay in floats: it must be as near as weights alone in int8 are, "
        "change no verdict, and flip no more than 0.2% of bits. That is what it is made for.",
    ),
    **{
        ("tensor", "*", precision): Tolerance(
            outputs=_relative(at_most),
            changed=changed,
            task=(),
            reason=f"{reason} {_TENSOR}",
        )
        for precision, at_most, changed, reason in (
            ("fp32", 1e-4, 0.0, FP32),
            ("fp16", 1e-2, 1e-2, FP16),
            ("int8", 0.1, 5e-2, _INT8),
            ("int8-w", 0.05, 2.5e-2, INT8_W),
            ("int16x8", 0.05, 2.5e-2, INT8_W),
            ("int8-static", 0.2, 0.1, STATIC),
            ("mixed", 0.05, 2.5e-2, INT8_W),
        )
    },
    ("watermark", "embedder", "fp32"): Tolerance(
        outputs=_relative(1e-4),
        changed=0.0,
        task=(),
        reason=FP32 + " The watermark is added to an image at a fifth of its size or less: 1e-4 of it cannot be seen, "
        "nor stored in 8 bits.",
    ),
    **{
        (kind, *key): tolerance
        for kind, table in (("deepencoder", DEEPENCODER), ("foveated", FOVEATED), ("captioner", CAPTIONER))
        for key, tolerance in table.items()
    },
}
