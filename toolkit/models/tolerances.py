"""Tolerances that several kinds of models share: for vectors and for choices, after a number of layers in a row.

They are made from the limits of a precision's recipe; see `ModelKind.tolerance`.
"""

from backends.recipe import Recipe
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
    """Return whether weights and activations are float32: such files differ from the reference in rounding alone."""
    return recipe.weights == "float32" and recipe.activations == "float32"


def largest_error(recipe: Recipe, depth: int) -> float:
    """Return the largest allowed norm of the error, as a share of the reference's norm.

    depth: layers or blocks in a row, along which the rounding to 8 bits adds up.
    """
    if recipe.weights == "int8":
        return recipe.limit("layer_error") * float(depth**0.5)
    return recipe.limit("relative_l2")


def output_limits(recipe: Recipe, depth: int) -> tuple[Limit, ...]:
    """Return the limits of every output over all samples.

    In float32 the limit is on the largest error, as a share of the output's range; else on the norm of the error. A
    precision with calibrated ranges has no limits: synthetic noise exceeds the ranges that were seen on real images.
    """
    if keeps_float32(recipe):
        return (Limit("of_range", recipe.limit("relative_l2"), needs_training=False),)
    if recipe.calibrated:
        return ()
    return (Limit("relative_l2", largest_error(recipe, depth), needs_training=False),)


def real_limits(recipe: Recipe, depth: int, *more: Limit) -> tuple[Limit, ...]:
    """Return the limits on real images: the limit on the error, then `more` limits on the kind's own numbers."""
    return (Limit("real_error", largest_error(recipe, depth), needs_training=False), *more)


def reason(recipe: Recipe, depth: int, more: str) -> str:
    """Return the reason for a tolerance: how rounding adds up along `depth` layers, the recipe's reason, and `more`."""
    rounding = _ROUNDINGS.format(depth) if recipe.weights == "int8" else ""
    return f"{rounding}{recipe.reason} {more}".strip()


def vectors(recipe: Recipe, depth: int, promised: bool = True) -> Tolerance:
    """Return the tolerance of outputs that are vectors: tokens, features, latents, states.

    promised: whether the recipe's mean cosine must hold at any depth. If False, the limit is at most the cosine that
    the largest allowed error at this depth leaves.
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
    """Return the tolerance of outputs of which the largest value is chosen, such as logits.

    number: the judge's name of the share of changed choices. choice: the choice in words. In float32 only rounding
    changes choices. In other precisions, values that are close to each other may swap; with random weights all values
    are close, so the number is then not judged.
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
