"""For tests: is a derivative right?

from jaxbn.testing import check_custom_vjp

def test_my_layer():
    check_custom_vjp(my_layer, plain_layer, x, scale)  # fails with a report
"""

from jaxbn._testing.check import check_custom_vjp as check_custom_vjp
from jaxbn._testing.report import Failure as Failure, VjpMismatch as VjpMismatch, VjpReport as VjpReport
