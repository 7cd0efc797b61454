"""The methods by the name that the command line knows them by."""

from train.methods.base import DataInfo, Method
from train.methods.classify import Classify
from train.methods.voting import Voting

METHODS: dict[str, type[Method]] = {method.name: method for method in (Classify, Voting)}

__all__ = ["METHODS", "Classify", "DataInfo", "Method", "Voting"]
