"""Search spaces and published architectures."""

import hwnas.spaces.falsr
import hwnas.spaces.quantnas  # noqa: F401  both register what they have
from hwnas.spaces.named import NAMED, named_architecture
from hwnas.spaces.space import SPACES, LayerwiseSpace, SearchSpace, SpaceOptions

__all__ = ["NAMED", "SPACES", "LayerwiseSpace", "SearchSpace", "SpaceOptions", "named_architecture"]
