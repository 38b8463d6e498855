"""What a graph of a model gets when the model runs on images: real inputs, to compare files on and to calibrate with.

A kind gives them for each of its graphs, whatever its inputs are: what comes before a graph runs on the float32 ONNX
files.
"""

from backends.registry import Registry

# By the `kind` of a bundle's manifest. Each value is called with a bundle, a role and images (paths, PIL images or
# arrays), and yields (name, inputs by name) one after the other, nothing kept. It raises NotAvailable where a graph
# that runs before is not in the bundle, and InvalidInput for what is no image.
FEEDS = Registry("kind of model whose graphs can be fed with images")
FEEDS.register("watermark", "toolkit.kinds.feeds.images:feeds", needs="pillow")
FEEDS.register("tensor", "toolkit.kinds.feeds.images:feeds", needs="pillow")
FEEDS.register("deepencoder", "toolkit.kinds.feeds.deepencoder:feeds", needs="pillow")
FEEDS.register("foveated", "toolkit.kinds.feeds.foveated:feeds", needs="onnxruntime")
FEEDS.register("captioner", "toolkit.kinds.feeds.captioner:feeds", needs="onnxruntime")
