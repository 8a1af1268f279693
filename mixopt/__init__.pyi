from mixopt.api.study import open_study as open_study
from mixopt.core.errors import MixoptError as MixoptError
from mixopt.core.mixture import Mixture as Mixture
from mixopt.core.space import MixtureSpace as MixtureSpace
from mixopt.pipelines.offline.from_python import fit as fit
from mixopt.pipelines.study.from_python import Study as Study

__version__: str
__all__: list[str]
