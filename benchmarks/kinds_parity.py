"""How near every file of a deepencoder, foveated or captioner bundle is to torch, and whether their answers agree.

    python -m benchmarks.kinds_parity build/foveated [--json FILE]

Graph by graph: seeded normal inputs, images from the package's photographs. max_abs_of_range is the largest difference
over the range of torch's output. Then the whole model: predicted latents and the argmax of attention of a clip for
foveated, the greedy tokens of a caption for captioner. Also the operators of each ONNX graph. The bundle needs its
torch weights; what it does not hold is not in the result.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.machine import default_threads, describe
from backends.registry import default_backend, open_session
from backends.tensor import Array, TensorSpec
from toolkit.images.preprocess import preprocess
from toolkit.models.captioner.runner import Captioner
from toolkit.models.foveated.runner import TwoPass

PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "toolkit" / "photographs").glob("*.jpg"))
FRAMES = 8
LATENTS = 64


def feeds_of(specs: list[TensorSpec], bundle: Bundle) -> dict[str, Array]:
    """Photographs for images, tokens of the whole vocabulary, positions in the middle, and else normal numbers."""
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for spec in specs:
        if spec.layout == "NCHW" and spec.shape[1] == 3:
            feeds[spec.name] = preprocess(PHOTOGRAPHS[0], spec.shape[-1]) * 2 - 1
        elif spec.name == "position":
            feeds[spec.name] = np.full(spec.shape, bundle.model["max_tokens"] // 2, spec.dtype)
        elif spec.dtype != "float32":
            feeds[spec.name] = random.integers(1, bundle.model["vocabulary"], spec.shape).astype(spec.dtype)
        else:
            feeds[spec.name] = random.standard_normal(spec.shape, dtype=np.float32)
    return feeds


def run(bundle: Bundle, artifact: Artifact, feeds: dict[str, Array]) -> dict[str, Array]:
    with open_session(bundle, artifact, default_backend(artifact.format).name, default_threads()) as session:
        return session.run(feeds)


def compare_graph(bundle: Bundle, role: str) -> list[dict[str, Any]]:
    reference = bundle.find(role, "torch", "fp32")
    feeds = feeds_of([binding.spec for binding in reference.inputs], bundle)
    expected = run(bundle, reference, feeds)
    rows = []
    for artifact in bundle.artifacts:
        if artifact.role != role or artifact.format == "torch":
            continue
        row: dict[str, Any] = {"role": role, "file": artifact.file, "bytes": artifact.bytes, "outputs": {}}
        if artifact.format == "onnx":
            nodes = onnx.load(bundle.folder / artifact.file, load_external_data=False).graph.node
            row["operators"] = dict(Counter(node.op_type for node in nodes).most_common())
        for name, got in run(bundle, artifact, feeds).items():
            want = expected[name].astype(np.float64)
            norms = float(np.linalg.norm(got.astype(np.float64)) * np.linalg.norm(want))
            row["outputs"][name] = {
                "max_abs_of_range": float(np.abs(got - want).max() / np.ptp(want)),
                "cosine": float((got * want).sum() / norms),
            }
        worst = max(output["max_abs_of_range"] for output in row["outputs"].values())
        print(f"{artifact.file:40} {worst:.2e} of range", flush=True)
        rows.append(row)
    return rows


def compare_clip(bundle: Bundle) -> list[dict[str, Any]]:
    rows = []
    with TwoPass(bundle, "torch") as model:
        count = min(FRAMES, model.most_frames())
    frames = [PHOTOGRAPHS[i % len(PHOTOGRAPHS)] for i in range(count)]
    latents = np.random.default_rng(1).standard_normal((count, *bundle.model["latent_shape"]), dtype=np.float32)
    for how in ("shallow", "deep"):
        with TwoPass(bundle, "torch") as model:
            expected = model.run(frames, None, latents, how)
        for backend in ("ort", "tflite"):
            try:
                with TwoPass(bundle, backend) as model:
                    got = model.run(frames, None, latents, how)
            except NotAvailable:
                continue
            row: dict[str, Any] = {"query": how, "backend": backend}
            for name in ("coarse", "fine"):
                row[f"{name}_max_abs"] = float(np.abs(getattr(got, name) - getattr(expected, name)).max())
            for name in ("coarse_attention", "fine_attention"):
                looks = (getattr(passes, name).reshape(count, -1).argmax(1) for passes in (got, expected))
                row[f"{name}_argmax_equal"] = bool(np.array_equal(*looks))
            row["losses"], row["losses_torch"] = got.losses, expected.losses
            print(row, flush=True)
            rows.append(row)
    return rows


def compare_caption(bundle: Bundle) -> list[dict[str, Any]]:
    """Photographs, each backend by itself from the pixels on; then latents of normal numbers, the same to all. With
    random weights a latent decides every token of its text, so that only many latents make many choices."""
    photographs = {path.name: path for path in PHOTOGRAPHS}
    texts: dict[str, dict[str, tuple[int, ...]]] = {}
    drawn: dict[str, Array] = {}
    for backend in ("torch", "ort", "tflite"):
        try:
            with Captioner(bundle, backend) as captioner:
                latents = {name: captioner.encode(captioner.read(path)) for name, path in photographs.items()}
                drawn = drawn or _normal_like(list(latents.values()))
                texts[backend] = {name: captioner.caption(z).tokens for name, z in (latents | drawn).items()}
        except NotAvailable:
            continue
    rows = [{"image": name, **_texts_of((name,), texts)} for name in photographs]
    rows.append({"latents": len(drawn), **_texts_of(tuple(drawn), texts)})
    for row in rows:
        print({key: value for key, value in row.items() if key != "tokens"}, flush=True)
    return rows


def _normal_like(latents: list[Array]) -> dict[str, Array]:
    """LATENTS of normal numbers, with the mean and the deviation of some true ones."""
    true, random = np.stack(latents), np.random.default_rng(0)
    rows = random.standard_normal((LATENTS, *true.shape[1:]), dtype=np.float32) * true.std() + true.mean()
    return {f"latent {i}": row for i, row in enumerate(rows)}


def _texts_of(names: tuple[str, ...], texts: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, Any]:
    """How the backends' texts for these agree, and how much there was to agree on."""
    reference = [texts["torch"][name] for name in names]
    same = [name for name in names if len({found[name] for found in texts.values()}) == 1]
    return {
        "backends": list(texts),
        "tokens": list(reference[0]) if len(names) == 1 else sum(map(len, reference)),
        "different_texts": len(set(reference)),
        "different_tokens": len({token for text in reference for token in text}),
        "identical": len(same) == len(names),
        "identical_texts": len(same),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    roles = dict.fromkeys(artifact.role for artifact in bundle.artifacts)
    result = {
        "machine": describe(),
        "model": bundle.model["name"],
        "weights": f"{bundle.weights['origin']}, {bundle.weights['source']}",
        "graphs": [row for role in roles for row in compare_graph(bundle, role)],
    }
    whole = {"foveated": compare_clip, "captioner": compare_caption}.get(bundle.model["kind"])
    if whole is not None:
        result["whole"] = whole(bundle)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
