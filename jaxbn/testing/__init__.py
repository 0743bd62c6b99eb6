"""For tests: is a derivative right, and what does it keep for the backward pass?

from jaxbn.testing import check_custom_vjp

def test_my_layer():
    check_custom_vjp(my_layer, plain_layer, x, scale)  # fails with a report
"""

from jaxbn.testing.check import check_custom_vjp as check_custom_vjp
from jaxbn.testing.report import Failure as Failure, VjpMismatch as VjpMismatch, VjpReport as VjpReport
from jaxbn.testing.saved import SavedBytes as SavedBytes, saved_bytes as saved_bytes
