"""The methods by the name that the command line knows them by."""

from train.methods.base import BetweenEpochs, DataInfo, Method
from train.methods.classify import Classify
from train.methods.fgdcc import Fgdcc
from train.methods.voting import Voting

METHODS: dict[str, type[Method]] = {method.name: method for method in (Classify, Voting, Fgdcc)}

__all__ = ["METHODS", "BetweenEpochs", "Classify", "DataInfo", "Fgdcc", "Method", "Voting"]
