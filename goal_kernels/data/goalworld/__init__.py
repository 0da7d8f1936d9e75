"""GoalWorld: an image-text retrieval data set that is generated, not downloaded, with exact truth.

Scenes of coloured shapes before a setting, five independent partial captions each with its logical
form, simulated detector features, and the relation of all captions to all images that they are
true of.
"""

from goal_kernels.data.goalworld.config import PRESETS, GoalWorldConfig
from goal_kernels.data.goalworld.dataset import DatasetSummary, generate_goalworld

__all__ = ["PRESETS", "DatasetSummary", "GoalWorldConfig", "generate_goalworld"]
