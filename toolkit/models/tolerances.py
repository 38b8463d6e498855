"""How far the files of DeepEncoder, the foveated model and the captioner may be from the reference, and why that far.

Keys are (role, precision); the role of a whole is its name.
"""

from backends.errors import NotAvailable
from toolkit.metrics.limit import FP16, FP32, INT8_W, STATIC, Limit, Tolerance

Table = dict[tuple[str, str], Tolerance]

_ROUNDINGS = (
    "Eight bits are steps of 1/127 of the largest: with the largest 4 to 10 times a typical value, weights and "
    "activations of a layer round to about 2% of it. {} layers or blocks, one after the other, add that up "
    "independently: 2% times the root of their number. "
)

_COSINE = (
    "A relative error e turns a vector by a cosine of 1/sqrt(1 + e^2): 0.995 is 10%, which INT8 is to keep for "
    "tokens and features of images. A token counts as lost where another of the same image is nearer to it than its "
    "own: {}. "
)

_PRECISIONS = ("fp32", "fp16", "int8", "int8-w", "int16x8", "int8-static")

# Of the error that int8 may have: weights alone half, fixed ranges twice.
_OF_INT8 = {"int8": 1.0, "int8-w": 0.5, "int16x8": 0.5, "int8-static": 2.0}

_FIXED_RANGES = ("int8-static", "int16x8")

_SHARED = {
    "fp32": FP32,
    "fp16": FP16,
    "int8": "",
    "int8-w": INT8_W,
    "int16x8": f"{INT8_W} Activations in 16 bits add nothing that shows.",
    "int8-static": STATIC,
}

# Least mean cosine of a vector with its reference, and the share of vectors that may be lost.
_LEAST_COSINE = {
    "fp32": 0.999999,
    "fp16": 0.9999,
    "int8": 0.995,
    "int8-w": 0.998,
    "int16x8": 0.998,
    "int8-static": 0.98,
}

_LOST = {"fp32": 0.0, "fp16": 1e-3, "int8": 1e-2, "int8-w": 5e-3, "int16x8": 5e-3, "int8-static": 4e-2}

# Choices of the largest of several numbers: what a choice between near ones may become.
_CHOICES = {"fp32": 0.0, "fp16": 1e-2, "int8": 0.05, "int8-w": 0.025, "int16x8": 0.025, "int8-static": 0.1}

# A picture's error, of a peak of 2 (from -1 to 1) and a typical value of a quarter of that: 12 dB above the error.
_LEAST_PSNR_DB = {"fp32": 80.0, "fp16": 50.0, "int8": 30.0, "int8-w": 36.0, "int16x8": 36.0, "int8-static": 24.0}


def _outputs(precision: str, depth: int) -> tuple[Limit, ...]:
    """float32 by the largest error, of the range of each output; else by its size. Where ranges were fixed on real
    images, noise that passes them says nothing."""
    if precision == "fp32":
        return (Limit("of_range", 1e-4, needs_training=False),)
    if precision in _FIXED_RANGES:
        return ()
    return (Limit("relative_l2", _error(precision, depth), needs_training=False),)


def _task(precision: str, depth: int, *more: Limit) -> tuple[Limit, ...]:
    """On real images: the error in every precision, and what the numbers mean."""
    return (Limit("real_error", _error(precision, depth), needs_training=False), *more)


def _error(precision: str, depth: int) -> float:
    """The most that the norm of the difference may be, of the reference's."""
    few = {"fp32": 1e-4, "fp16": 1e-2}
    return few[precision] if precision in few else 0.02 * depth**0.5 * _OF_INT8[precision]


def _reason(precision: str, depth: int, more: str) -> str:
    rounding = _ROUNDINGS.format(depth) if precision in _OF_INT8 else ""
    return f"{rounding}{_SHARED[precision]} {more}".strip()


def _least_cosine(precision: str, depth: int, promised: bool) -> float:
    """What is promised; of others no more than the error that their depth allows leaves."""
    left: float = (1 + _error(precision, depth) ** 2) ** -0.5
    return _LEAST_COSINE[precision] if promised else min(_LEAST_COSINE[precision], left)


def _vectors(role: str, depth: int, promised: bool = True) -> Table:
    """For outputs that are vectors: tokens, features, latents, states."""
    return {
        (role, precision): Tolerance(
            outputs=_outputs(precision, depth),
            changed=0.0,
            task=_task(
                precision,
                depth,
                Limit("mean_cosine", None, needs_training=False, at_least=_least_cosine(precision, depth, promised)),
                Limit("lost", _LOST[precision], needs_training=False),
            ),
            reason=_reason(precision, depth, _COSINE.format(f"{_LOST[precision]:.1%} of them may be")),
        )
        for precision in _PRECISIONS
    }


def _choices(role: str, depth: int, number: str, what: str) -> Table:
    """For outputs of which the largest is chosen. Equal but for rounding in float32; elsewhere near ones may swap, and
    with random weights all of them are near."""
    return {
        (role, precision): Tolerance(
            outputs=_outputs(precision, depth),
            changed=0.0,
            task=_task(precision, depth, Limit(number, _CHOICES[precision], needs_training=precision != "fp32")),
            reason=_reason(
                precision,
                depth,
                f"{what}: {_CHOICES[precision]:.1%} may be another one, where two were as near as the error.",
            ),
        )
        for precision in _PRECISIONS
    }


def _latents(role: str, depth: int) -> Table:
    """Predicted VAE latents: numbers of about 1 that a decoder draws from."""
    table = {}
    for precision in _PRECISIONS:
        limits = _outputs(precision, depth)
        if precision == "fp32":
            limits = (*limits, Limit("max_abs", 1e-3, needs_training=False))
        reason = _reason(precision, depth, "Latents are numbers of about 1: 1e-3 of one cannot be seen once decoded.")
        table[role, precision] = Tolerance(limits, 0.0, _task(precision, depth), reason)
    return table


def _pictures(role: str, depth: int) -> Table:
    return {
        (role, precision): Tolerance(
            outputs=_outputs(precision, depth),
            changed=0.0,
            task=_task(
                precision, depth, Limit("psnr_db", None, needs_training=False, at_least=_LEAST_PSNR_DB[precision])
            ),
            reason=_reason(
                precision,
                depth,
                f"A picture against the reference's own: {_LEAST_PSNR_DB[precision]:g} dB; half a step of 8 bits is "
                "54 dB.",
            ),
        )
        for precision in _PRECISIONS
    }


def _two_passes(role: str) -> Table:
    """Both passes of a clip: the second asks what the first said, so errors of five graphs add up."""
    return {
        (role, precision): Tolerance(
            outputs=(),
            changed=0.0,
            task=(
                Limit("latent_max_abs" if precision == "fp32" else "latent_error", error, needs_training=False),
                Limit("attention_changed", _CHOICES[precision], needs_training=precision != "fp32"),
            ),
            reason=_reason(
                precision,
                92,
                "Latents are numbers of about 1: in float32 none may be off by 1e-3; elsewhere their error counts, of "
                f"their own size. A frame's attention may have its peak elsewhere for {_CHOICES[precision]:.1%} of "
                "frames.",
            ),
        )
        for precision, error in zip(_PRECISIONS, (1e-3, 1e-2, 0.2, 0.1, 0.1, 0.4), strict=True)
    }


def _captions(role: str) -> Table:
    """A whole text is the same only if each of its choices is: with p a choice, 1 - (1 - p)^20 of short captions."""
    return {
        (role, precision): Tolerance(
            outputs=(),
            changed=1.0,
            task=(Limit("captions_changed", share, needs_training=precision != "fp32"),),
            reason=_reason(
                precision,
                8,
                f"A caption of twenty tokens is twenty choices: {share:.0%} of captions may be others. In float32 a "
                "hundred greedy tokens must be the same.",
            ),
        )
        for precision, share in zip(_PRECISIONS, (0.0, 0.2, 0.65, 0.4, 0.4, 0.9), strict=True)
    }


def _losses(role: str) -> Table:
    return {
        (role, precision): Tolerance(
            outputs=(Limit("relative_l2", error, needs_training=False),),
            changed=0.0,
            task=(),
            reason=_reason(precision, 8, "A loss is a mean: it moves by no more than what it is a mean of."),
        )
        for precision, error in zip(_PRECISIONS, (1e-4, 1e-2, 0.1, 0.05, 0.05, 0.2), strict=True)
    }


# Layers or blocks in a row: 12 + 24 blocks of two halves each; 12; 30; a layer and its projections.
DEEPENCODER: Table = _vectors("*", 72)

FOVEATED: Table = {
    **_vectors("encode_frames", 24),
    **_choices("query_shallow", 3, "attention_changed", "The patch that a query looks at most"),
    **_choices("query_deep", 24, "attention_changed", "The patch that a query looks at most"),
    **_vectors("language", 60, promised=False),
    **_latents("predict", 8),
    **_two_passes("two passes, shallow"),
    **_two_passes("two passes, deep"),
}

CAPTIONER: Table = {
    **_vectors("encode_image", 5),
    **_pictures("decode_image", 5),
    **_vectors("encode_text", 2),
    **_choices("decode_text_prefill", 8, "tokens_changed", "The next token"),
    **_choices("decode_text_step", 8, "tokens_changed", "The next token"),
    **_captions("caption"),
    **_losses("losses"),
}


def tolerance_for(kind: str, role: str, precision: str) -> Tolerance:
    """The tolerance of a file. Raises NotAvailable where nobody has written one: there is no default."""
    found = TOLERANCES.get((kind, role, precision)) or TOLERANCES.get((kind, "*", precision))
    if found is None:
        known = sorted({key[2] for key in TOLERANCES if key[0] == kind and key[1] in (role, "*")})
        raise NotAvailable(
            f"no tolerance is written down for kind {kind!r}, role {role!r}, precision {precision!r}, so nothing is "
            f"judged; there is {', '.join(known) or 'none'} (toolkit/models/tolerances.py)"
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
