"""Clustering of (N, D) features: k-means and mixtures of every class and K, choice of K, other methods, quality."""

from fgdemo.clustering.blocks import ArrayBlocks
from fgdemo.clustering.choose_k import choose_k
from fgdemo.clustering.classwise import classwise_kmeans
from fgdemo.clustering.kmeans import kmeans
from fgdemo.clustering.matching import match_centroids, match_ids
from fgdemo.clustering.methods import METHODS, cluster
from fgdemo.clustering.mixture import ClasswiseMixtures, classwise_mixtures
from fgdemo.clustering.reduce import PROJECTIONS, Projection, pca, project2d
from fgdemo.clustering.result import ClasswiseClustering, Clustering
from fgdemo.clustering.some_classes import recluster_classes
from fgdemo.clustering.steady import SteadyK
from fgdemo.clustering.stream import stream_kmeans

__all__ = [
    "METHODS",
    "PROJECTIONS",
    "ArrayBlocks",
    "ClasswiseClustering",
    "ClasswiseMixtures",
    "Clustering",
    "Projection",
    "SteadyK",
    "choose_k",
    "classwise_kmeans",
    "classwise_mixtures",
    "cluster",
    "kmeans",
    "match_centroids",
    "match_ids",
    "pca",
    "project2d",
    "recluster_classes",
    "stream_kmeans",
]
