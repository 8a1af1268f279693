from mixopt.surrogates.nested_laws import NestedLaws
from mixopt.testing.surrogates import SurrogateConformance
class TestNestedLaws(SurrogateConformance):
    surrogate = NestedLaws
