"""Tolerances that several kinds of models share: of vectors and of choices, at a depth of so many layers.

A kind composes its own from the limits of a precision's recipe, see `ModelKind.tolerance`.
"""

from backends.precision import Recipe
from toolkit.metrics.limit import Limit, Tolerance

_ROUNDINGS = (
    "Eight bits are steps of 1/127 of the largest: with the largest 4 to 10 times a typical value, weights and "
    "activations of a layer round to about 2% of it. {} layers or blocks, one after the other, add that up "
    "independently: 2% times the root of their number. "
)

_COSINE = (
    "A relative error e turns a vector by a cosine of 1/sqrt(1 + e^2): 0.995 is 10%, which INT8 is to keep for "
    "tokens and features of images. A token counts as lost where another of the same image is nearer to it than its "
    "own: {:.1%} of them may be."
)


def keeps_float32(recipe: Recipe) -> bool:
    """Whether a precision rounds nothing: its files differ from the reference by the order of sums alone."""
    return recipe.weights == "float32" and recipe.activations == "float32"


def largest_error(recipe: Recipe, depth: int) -> float:
    """Return the most that the norm of a difference may be, as a share of the reference's norm.

    depth: layers or blocks in a row. Rounding to 8 bits adds up along them.
    """
    if recipe.weights == "int8":
        return recipe.limit("layer_error") * float(depth**0.5)
    return recipe.limit("relative_l2")


def output_limits(recipe: Recipe, depth: int) -> tuple[Limit, ...]:
    """Return the limits of every output over all samples.

    In float32 that is the largest error, as a share of the output's range; else the error's size. A precision with
    calibrated ranges has none: noise that passes ranges seen on real images says nothing.
    """
    if keeps_float32(recipe):
        return (Limit("of_range", recipe.limit("relative_l2"), needs_training=False),)
    if recipe.calibrated:
        return ()
    return (Limit("relative_l2", largest_error(recipe, depth), needs_training=False),)


def real_limits(recipe: Recipe, depth: int, *more: Limit) -> tuple[Limit, ...]:
    """Return the limits on real images: of the error in every precision, and `more` of the kind's own numbers."""
    return (Limit("real_error", largest_error(recipe, depth), needs_training=False), *more)


def reason(recipe: Recipe, depth: int, more: str) -> str:
    """Return the reason of a tolerance: how roundings add up along `depth` layers, the recipe's reason, and `more`."""
    rounding = _ROUNDINGS.format(depth) if recipe.weights == "int8" else ""
    return f"{rounding}{recipe.reason} {more}".strip()


def vectors(recipe: Recipe, depth: int, promised: bool = True) -> Tolerance:
    """Return the tolerance of outputs that are vectors: tokens, features, latents, states.

    promised: the recipe's mean cosine holds whatever the depth; else no more is asked than the error of that depth
    leaves.
    """
    cosine, lost = recipe.limit("mean_cosine"), recipe.limit("lost")
    if not promised:
        cosine = min(cosine, float((1 + largest_error(recipe, depth) ** 2) ** -0.5))
    return Tolerance(
        outputs=output_limits(recipe, depth),
        changed=0.0,
        task=real_limits(
            recipe,
            depth,
            Limit("mean_cosine", None, needs_training=False, at_least=cosine),
            Limit("lost", lost, needs_training=False),
        ),
        reason=reason(recipe, depth, _COSINE.format(lost)),
    )


def largest_of_several(recipe: Recipe, depth: int, number: str, choice: str) -> Tolerance:
    """Return the tolerance of outputs of which the largest is chosen. number: the judge's. choice: in words.

    In float32 the choices are equal but for rounding. Elsewhere near ones may swap, and with random weights all are
    near, so that the number is not judged there.
    """
    changed = recipe.limit("choices_changed")
    return Tolerance(
        outputs=output_limits(recipe, depth),
        changed=0.0,
        task=real_limits(recipe, depth, Limit(number, changed, needs_training=not keeps_float32(recipe))),
        reason=reason(
            recipe, depth, f"{choice}: {changed:.1%} may be another one, where two were as near as the error."
        ),
    )
