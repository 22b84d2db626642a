"""Search spaces: which architectures there are, and how each becomes a model."""

from search_spaces.architecture import Architecture
from search_spaces.choosers import Answers, RandomChooser
from search_spaces.depth_channels import DepthChannels
from search_spaces.feedforward import FeedForward
from search_spaces.model import Model
from search_spaces.nasbench201.space import NASBench201
from search_spaces.nasnet.space import NASNet
from search_spaces.registry import SEARCH_SPACES, load, space_class, space_of
from search_spaces.resnet import ResNets
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

__all__ = [
    "SEARCH_SPACES",
    "Answers",
    "Architecture",
    "DepthChannels",
    "FeedForward",
    "InvalidArchitecture",
    "Model",
    "NASBench201",
    "NASNet",
    "RandomChooser",
    "ResNets",
    "SearchSpace",
    "Task",
    "load",
    "space_class",
    "space_of",
]
