"""JAX's own convolution, which jaxbn calls also while `jaxbn.patch_jax` has put another in its place.

Otherwise the algorithms would call themselves, and `jaxbn.reference` would test the rules against themselves.
"""

from jax import lax

lax_conv_general_dilated = lax.conv_general_dilated
