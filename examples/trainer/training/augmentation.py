"""Training images that are a little different each time: cropped, flipped, shifted; compiled with the step."""

from dataclasses import dataclass
from numbers import Integral, Real

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image before it is learnt from; for `make_train_step` and `fit`.

    Each image of a batch has draws of its own, all of them from the key: the same key gives the same images, however
    many devices hold them. Nothing is changed unless it is asked for.

    Args:
        shift: Up to how many pixels an image moves, up or down and left or right, every distance being as likely;
            zeros come in. At least 0, and less than the images' sides.
        flip: Whether every other image, by chance, is turned left to right.
        crop: The least share of each side that is kept, above 0; 1 keeps all of it. The shares of the two sides are
            drawn between `crop` and 1, then the part's place; the part is stretched over the whole image by linear
            interpolation.

    Raises:
        TypeError: an argument of another type.
        ValueError: a negative `shift`, a `crop` that is not above 0 and at most 1.

    Example:
        >>> images = jnp.ones((2, 8, 8, 1), jnp.float32)
        >>> augment = Augmentation(shift=1, flip=True, crop=0.8)
        >>> augment(jax.random.key(0), images).shape
        (2, 8, 8, 1)
    """

    shift: int = 0
    flip: bool = False
    crop: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.shift, Integral) or isinstance(self.shift, bool):
            raise TypeError(f"Augmentation: `shift` is {self.shift!r}; it must be an int")
        if self.shift < 0:
            raise ValueError(f"Augmentation: `shift` is {self.shift}; it must be at least 0")
        if not isinstance(self.flip, bool):
            raise TypeError(f"Augmentation: `flip` is {self.flip!r}; it must be True or False")
        if not isinstance(self.crop, Real) or isinstance(self.crop, bool):
            raise TypeError(f"Augmentation: `crop` is {self.crop!r}; it must be a number")
        if not 0 < self.crop <= 1:
            raise ValueError(f"Augmentation: `crop` is {self.crop!r}; it must be above 0 and at most 1")

    def __call__(
        self, key: Key[Array, ""], images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The images as they are learnt from, of the same shape and dtype."""
        if images.dtype.name not in DTYPES:
            raise TypeError(f"Augmentation: `images` has dtype {images.dtype}; it must be one of {', '.join(DTYPES)}")
        if images.ndim != 4:
            raise ValueError(
                f"Augmentation: `images` has shape {images.shape}; it must be (batch, height, width, channels)"
            )
        if self.shift >= min(images.shape[1:3]):
            raise ValueError(
                f"Augmentation: `shift` is {self.shift}, `images` has shape {images.shape}; "
                "the shift must be less than height and width"
            )
        return jax.vmap(self._augmented)(jax.random.split(key, len(images)), images)

    def _augmented(self, key: Key[Array, ""], image: Float[Array, "height width channels"]) -> Float[Array, "..."]:
        crop, flip, shift = jax.random.split(key, 3)
        if self.crop < 1:
            image = _cropped(crop, image, float(self.crop))
        if self.flip:
            image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)
        if self.shift:
            image = _shifted(shift, image, self.shift)
        return image


def _cropped(key: Key[Array, ""], image: Float[Array, "..."], least: float) -> Float[Array, "..."]:
    sides, places = jax.random.uniform(key, (2, 2), jnp.float32)
    sides = least + (1 - least) * sides
    starts = places * (1 - sides) * jnp.array(image.shape[:2], jnp.float32)  # between 0 and what is cut off, in pixels
    # It maps the place p of the image to p · scale + translation: here from `starts`, and stretched by 1 / sides.
    wide = image.astype(jnp.float32) if jnp.finfo(image.dtype).bits < 32 else image
    part = jax.image.scale_and_translate(
        wide, image.shape, (0, 1), 1 / sides, -starts / sides, "linear", antialias=False
    )
    return part.astype(image.dtype)


def _shifted(key: Key[Array, ""], image: Float[Array, "..."], most: int) -> Float[Array, "..."]:
    down, right = jax.random.randint(key, (2,), 0, 2 * most + 1, jnp.int32)
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)))
    return jax.lax.dynamic_slice(padded, (down, right, jnp.int32(0)), image.shape)
