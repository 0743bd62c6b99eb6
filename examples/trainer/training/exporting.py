"""A trained network as a file that needs JAX alone."""

import importlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import export

from jaxbn import cnn

from .evaluation import vote
from .state import TrainState, over_members

PLATFORMS = ("cpu", "cuda", "tpu")


def export_network(state: TrainState, image_shape: Sequence[int]) -> bytes:
    """The network for inference as one program with its parameters, for any number of images.

        images → softmax(logits), or of an ensemble the vote: the mean of the members' softmax(logits)

    It runs on CPU, CUDA and TPU, under this release of JAX and, as JAX promises, those of the half year after. It is
    loaded without this package::

        network = jax.export.deserialize(Path(file).read_bytes())
        probabilities = network.call(images)

    Args:
        state: One network or an ensemble; the running statistics normalise.
        image_shape: Of one image, (height, width, channels). The program takes float32 images of shape
            (n, height, width, channels), n ≥ 1, with the values that the network has been trained with, and gives
            float32 probabilities of shape (n, classes).

    Returns:
        The bytes of the file.

    Raises:
        ValueError: `image_shape` is not three sizes, or its channels are not the network's.
        ImportError: flatbuffers is not installed.

    Example:
        >>> import optax
        >>> from examples.trainer import training
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> network = export.deserialize(export_network(state, (8, 8, 1)))
        >>> network.call(jnp.ones((5, 8, 8, 1), jnp.float32)).shape
        (5, 10)
    """
    try:
        importlib.import_module("flatbuffers")
    except ImportError as error:
        raise ImportError('export_network needs flatbuffers: python -m pip install "jaxbn[examples]"') from error
    members = state.step.ndim
    channels = state.params.blocks[0].kernel.shape[-2]
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] != channels:
        raise ValueError(
            f"export_network: `image_shape` is {tuple(image_shape)}; it must be (height, width, {channels}), "
            f"since the network's images have {channels} channels"
        )

    @jax.jit
    def network(images):
        def infer(params, running):
            return cnn.apply(params, running, images, train=False)[0]

        logits = over_members(infer, members)(state.params, state.running)
        return vote(logits) if members else jax.nn.softmax(logits, axis=-1)

    images = jax.ShapeDtypeStruct(export.symbolic_shape("n, " + ", ".join(map(str, image_shape))), jnp.float32)
    return bytes(export.export(network, platforms=PLATFORMS)(images).serialize())
