"""Search spaces and published architectures."""

import hwnas.spaces.baselines
import hwnas.spaces.falsr
import hwnas.spaces.fixed
import hwnas.spaces.quantnas
import hwnas.spaces.trilevel
import hwnas.spaces.trilevel_networks  # noqa: F401  all of them register what they have
from hwnas.spaces.named import NAMED, named_architecture
from hwnas.spaces.space import SPACES, LayerwiseSpace, SearchSpace, SpaceOptions

__all__ = ["NAMED", "SPACES", "LayerwiseSpace", "SearchSpace", "SpaceOptions", "named_architecture"]
